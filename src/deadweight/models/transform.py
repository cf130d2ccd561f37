"""The preprocessing that belongs to a vision model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from deadweight.errors import InputError
from deadweight.models.input_shape import input_shape
from deadweight.models.preprocessing import INTERPOLATIONS, Change, Settings, change_of, changed, settings_of
from deadweight.models.provenance import origin
from deadweight.source import parse_source

_RESAMPLE = {number: name for name, number in INTERPOLATIONS.items()}


class GuessedPreprocessing(UserWarning):
    """Nothing says how the pictures a model was trained on were prepared; the message says what is done instead."""


@dataclass(frozen=True)
class Preparation:
    """From a picture to what a model takes: `place` gives it mode and size, `finish` makes it a normalised tensor.

    Training augments between the two.

    text:      one line that says what is done.
    guess:     why that is a guess; empty where it is the model's own preprocessing, or somebody's choice.
    settings:  the same as JSON.
    """

    place: Callable[[Image.Image], Image.Image] = field(repr=False)
    finish: Callable[[Image.Image], Tensor] = field(repr=False)
    text: str = ""
    guess: str = ""
    settings: Settings = field(default_factory=dict, repr=False, hash=False)
    whole: Callable[[Image.Image], Tensor] | None = field(default=None, repr=False)

    def __call__(self, picture: Image.Image) -> Tensor:
        return self.finish(self.place(picture)) if self.whole is None else self.whole(picture)

    def __str__(self) -> str:
        return f"{self.text}; guessed: {self.guess}" if self.guess else self.text


def transform(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    size: int | tuple[int, int] | None = None,
) -> Preparation:
    """From a picture to what `model` takes: (channels, height, width), float32.

    A model of timm gets timm's ``create_transform`` with the model's data config, one of transformers its own image
    processor, one of torchvision the preset published with its default weights; a model trained here [0, 1]. What
    nothing states is guessed, with a :class:`GuessedPreprocessing` warning. ``str`` of what is returned says in one
    line what is done.

    Parameters
    ----------
    mean, std, crop_pct, interpolation, size:
        Instead of the model's own: per channel of [0, 1] (one number stands for all), the share of the shorter side
        that the centre crop keeps, a name such as ``bicubic``, pixels a side or (height, width). The same after ``?``
        of the model's source: ``timm:NAME?crop_pct=1&interpolation=bilinear``.

    Raises
    ------
    InputError
        A number out of range, or a size that the model's processor has no place for.

    Examples
    --------
    >>> import deadweight as dw
    >>> from PIL import Image
    >>> prepare = transform(dw.load("embedded:digits-vit"))
    >>> prepare(Image.new("L", (20, 20))).shape
    torch.Size([1, 8, 8])
    >>> print(prepare)
    8 × 8 pixels: resized to 8 (bicubic), cropped at the centre; in [0, 1]
    """
    channels = input_shape(model)[0]
    recorded = origin(model)
    asked = Change(
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        crop_pct=crop_pct,
        interpolation=interpolation,
        size=(size, size) if isinstance(size, int) else size,
    ).over(change_of(parse_source(recorded["source"]).options) if recorded else Change())
    settings, guess = settings_of(model)
    if asked != Change():
        settings = changed(settings, asked, channels)
    if asked.mean and asked.std and asked.crop_pct and asked.interpolation:
        guess = ""
    found = preparation(settings, channels, guess)
    if asked.size is not None and tuple(found(_probe(channels)).shape[1:]) != asked.size:
        raise InputError(
            f"pictures are not resized to {asked.size[0]} × {asked.size[1]}: {found.text}",
            expected="preprocessing that resizes or crops",
        )
    if guess:
        warnings.warn(
            f"how pictures are prepared for this {type(model).__name__} is guessed, {guess}: {found.text}. If it was "
            "trained on others, say so: ?mean=…&std=…&crop_pct=…&interpolation=…&size=… after its source",
            GuessedPreprocessing,
            stacklevel=2,
        )
    return found


def preparation(settings: Settings, channels: int, guess: str = "") -> Preparation:
    """The preparation that the settings describe, of pictures with so many channels (1: grey, else RGB)."""
    mode = "L" if channels == 1 else "RGB"
    made = {"timm": _by_timm, "torchvision": _by_torchvision, "transformers": _by_processor}[settings["library"]]
    place, finish, text, whole = made(settings, mode)
    return Preparation(place, finish, text, guess, settings, whole)


_Made = tuple[
    Callable[[Image.Image], Image.Image], Callable[[Image.Image], Tensor], str, Callable[[Image.Image], Tensor] | None
]


def _by_timm(settings: Settings, mode: str) -> _Made:
    from timm.data import create_transform
    from timm.data.transforms import MaybeToTensor
    from torchvision.transforms import Compose

    config = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    del config["library"]
    steps: list[Any] = create_transform(**config, is_training=False).transforms
    tensor = next(at for at, step in enumerate(steps) if isinstance(step, MaybeToTensor))
    shape, finish = Compose(steps[:tensor]), Compose(steps[tensor:])
    height, width = config["input_size"][-2:]
    how = {"squash": "squashed", "border": "resized with a border"}.get(str(config["crop_mode"]), "resized")
    shorter = " × ".join(str(int(side / config["crop_pct"])) for side in dict.fromkeys((height, width)))
    text = f"{how} to {shorter} ({config['interpolation']}), cropped at the centre"
    return lambda picture: shape(picture.convert(mode)), finish, _line(height, width, text, config), None


def _by_torchvision(settings: Settings, mode: str) -> _Made:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    height, width = settings["crop_size"]
    shorter = [settings["resize_size"]]
    interpolation = InterpolationMode(settings["interpolation"])

    def place(picture: Image.Image) -> Image.Image:
        resized = F.resize(picture.convert(mode), shorter, interpolation=interpolation)
        placed: Image.Image = F.center_crop(resized, [height, width])
        return placed

    def finish(picture: Image.Image) -> Tensor:
        pixels = F.convert_image_dtype(F.pil_to_tensor(picture), torch.float32)
        normalised: Tensor = F.normalize(pixels, settings["mean"], settings["std"])
        return normalised

    text = f"resized to {shorter[0]} ({settings['interpolation']}), cropped at the centre"
    return place, finish, _line(height, width, text, settings), None


def _by_processor(settings: Settings, mode: str) -> _Made:
    import transformers
    from torchvision.transforms.functional import to_pil_image

    stored = settings["processor"]
    name = stored["image_processor_type"]
    processor: Any = getattr(transformers, name).from_dict(dict(stored))

    def whole(picture: Image.Image, **other: Any) -> Tensor:
        made: Tensor = processor(picture.convert(mode), return_tensors="pt", **other)["pixel_values"][0]
        if made.ndim != 3:
            raise InputError(
                f"the {name} makes {tuple(made.shape)} of a picture",
                expected="one picture, (channels, height, width)",
                cure="give a transform of your own to load_images",
            )
        return made

    def place(picture: Image.Image) -> Image.Image:
        placed: Image.Image = to_pil_image(whole(picture, do_rescale=False, do_normalize=False), mode)
        return placed

    def finish(picture: Image.Image) -> Tensor:
        return whole(picture, do_resize=False, do_center_crop=False)

    text = _processor_line(stored)
    if _splits(whole, place, finish, mode):
        return place, finish, text, whole
    return lambda picture: picture.convert(mode), whole, text, None


def _splits(whole: Any, place: Any, finish: Any, mode: str) -> bool:
    """Whether the processor's two halves make the same of a picture as the whole: some pad or cut into tiles."""
    probe = _probe(1 if mode == "L" else 3)
    try:
        return torch.equal(finish(place(probe)), whole(probe))
    except (TypeError, ValueError, RuntimeError):
        return False


def _probe(channels: int) -> Image.Image:
    return Image.linear_gradient("L").resize((91, 77)).convert("L" if channels == 1 else "RGB")


def _line(height: int, width: int, how: str, config: Settings) -> str:
    numbers = "in [0, 1]"
    if any(config["mean"]) or any(value != 1 for value in config["std"]):
        numbers = f"mean {_numbers(config['mean'])}, std {_numbers(config['std'])}"
    return f"{height} × {width} pixels: {how}; {numbers}"


def _processor_line(stored: Settings) -> str:
    size, crop = stored.get("size") or {}, stored.get("crop_size") or {}
    steps = []
    if stored.get("do_resize"):
        how = " × ".join(str(side) for side in size.values())
        resample = _RESAMPLE.get(stored.get("resample", -1), "its own way")
        steps.append(f"resized to {how} ({resample})")
    if stored.get("do_center_crop"):
        steps.append(f"cropped at the centre to {' × '.join(str(side) for side in crop.values())}")
    factor = stored.get("rescale_factor")
    if stored.get("do_rescale") and factor:
        steps.append("in [0, 1]" if abs(factor * 255 - 1) < 1e-6 else f"times {factor:.6g}")
    if stored.get("do_normalize"):
        steps.append(f"mean {_numbers(stored['image_mean'])}, std {_numbers(stored['image_std'])}")
    return f"{stored['image_processor_type']}: {', '.join(steps) or 'as it is'}"


def _numbers(values: Any) -> str:
    parts = [f"{value:.4g}" for value in (values if isinstance(values, (list, tuple)) else [values])]
    return parts[0] if len(set(parts)) == 1 else ", ".join(parts)


__all__ = ["GuessedPreprocessing", "Preparation", "input_shape", "preparation", "transform"]
