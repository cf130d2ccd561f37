"""What happens to a training picture before it is a tensor: crop, mirror, RandAugment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps
from torch import Tensor

from deadweight.data import ImageData, ImageSet
from deadweight.data.images import Pictures
from deadweight.errors import InputError
from deadweight.training.randomness import reseed
from deadweight.training.recipe import Recipe

_GREY = (128, 128, 128)  # what RandAugment fills corners with
_TRANSLATE = 0.45  # of the shorter side at most, as timm does


@dataclass(frozen=True)
class Augmented:
    """Training pictures by (index, draw): the same pair always gives the same image, in whichever process.

    `change` acts on an RGB picture; the data's own preparation follows.
    """

    pictures: Pictures
    change: Callable[[Image.Image], Image.Image] = field(repr=False)
    finish: Callable[[Image.Image], Tensor] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, draw = key
        reseed("picture", draw)
        at = self.pictures.indices[index]
        picture = self.pictures.open(at)
        assert isinstance(picture, Image.Image)  # augmented() has looked
        changed = self.change(picture.convert("RGB"))
        return self.finish(changed if picture.mode == "RGB" else changed.convert(picture.mode)), int(
            self.pictures.labels[at]
        )


def augmented(data: ImageData, recipe: Recipe) -> Augmented | None:
    """The training pictures as `recipe` changes them; None where it leaves them as they are.

    Raises :class:`InputError` for sets that give tensors rather than pictures, and for policies timm cannot read.
    """
    if not recipe.changes_pictures:
        return None
    pictures: ImageSet = data.train
    if not isinstance(pictures, Pictures) or isinstance(pictures.open(pictures.indices[0]), Tensor):
        raise InputError(
            f"augment, crop or flip with {data.name}, whose training set gives tensors",
            expected="pictures: a set of dw.load_images",
            cure="augment in your own data set, and leave them out of the recipe",
        )
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision.transforms import Compose, RandomHorizontalFlip

    steps: list[Any] = []
    whole: Any = pictures.transform
    finish = whole
    if recipe.crop is not None:
        steps.append(RandomResizedCropAndInterpolation(data.size, scale=recipe.crop, interpolation="random"))
        finish = getattr(whole, "finish", whole)  # it has its size already
    elif hasattr(whole, "place"):
        steps.append(whole.place)
        finish = whole.finish
    if recipe.flip > 0:
        steps.append(RandomHorizontalFlip(recipe.flip))
    if recipe.augment is not None:
        steps.append(_policy(recipe.augment, data.size))
    return Augmented(pictures, Compose(steps), finish)


def _policy(text: str, size: tuple[int, int]) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    try:
        policy: Any = rand_augment_transform(text, {"translate_const": int(_TRANSLATE * min(size)), "img_mean": _GREY})
    except (AssertionError, ValueError, KeyError) as problem:
        raise InputError(
            f"augment {text!r}", expected="a RandAugment policy of timm", cure="rand-m9-mstd0.5-inc1"
        ) from problem
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return policy


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep so many bits of each channel. timm asks for 0 at the highest magnitude: black, which Pillow now refuses."""
    if bits >= 8:
        return picture
    return ImageOps.posterize(picture, bits) if bits > 0 else Image.new(picture.mode, picture.size)
