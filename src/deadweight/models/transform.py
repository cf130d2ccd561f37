"""The preprocessing that belongs to a vision model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from deadweight.models.provenance import origin
from deadweight.network import hub_reach
from deadweight.source import Source, parse_source

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preparation:
    """From a picture to what a model takes: `place` gives it mode and size, `finish` makes it a normalised tensor.

    Training augments between the two.
    """

    place: Callable[[Image.Image], Image.Image]
    finish: Callable[[Image.Image], Tensor]

    def __call__(self, picture: Image.Image) -> Tensor:
        return self.finish(self.place(picture))


def input_shape(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) the model takes, read off its patch projection and configuration."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    embed: Any = getattr(model, "patch_embed", None)
    size: Any = getattr(embed, "img_size", None) or getattr(model, "image_size", None)
    if size is None and hasattr(model, "config"):
        size = getattr(model.config, "image_size", None)
    if size is None:
        size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return int(first.in_channels), int(height), int(width)


Normalisation = tuple[tuple[float, ...], tuple[float, ...], float]


def _processor(source: Source) -> Normalisation | None:
    """Mean and deviation from the ``preprocessor_config.json`` beside a Hugging Face model's weights."""
    from transformers.utils import cached_file

    with hub_reach():
        try:
            found = cached_file(source.repository[0], "preprocessor_config.json")
        except OSError:
            return None
    config = json.loads(Path(str(found)).read_text(encoding="utf-8"))
    mean, std = config.get("image_mean"), config.get("image_std")
    return (tuple(mean), tuple(std), 1.0) if mean and std else None


def _normalisation(model: nn.Module, channels: int) -> Normalisation:
    """(mean, standard deviation, share of the shorter side kept by the centre crop)."""
    recorded = origin(model)
    source = parse_source(recorded["source"]) if recorded else None
    plain: Normalisation = ((0.0,) * channels, (1.0,) * channels, 1.0)
    if source is not None and source.scheme == "torchvision":
        return _IMAGENET_MEAN, _IMAGENET_STD, 1.0
    if hasattr(model, "config"):
        half: Normalisation = ((0.5,) * channels, (0.5,) * channels, 1.0)
        return (_processor(source) if source is not None and source.scheme == "hf" else None) or half
    if source is None or source.scheme != "timm":
        return plain
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", {})
    if len(config.get("mean", ())) != channels:
        return plain
    return tuple(config["mean"]), tuple(config["std"]), float(config.get("crop_pct") or 1.0)


def _torchvisions(model: nn.Module, height: int) -> Callable[[Image.Image], Tensor] | None:
    """What torchvision publishes with a model's default weights, if the model takes pictures of that size."""
    recorded = origin(model)
    source = parse_source(recorded["source"]) if recorded else None
    if source is None or source.scheme != "torchvision":
        return None
    from torchvision.models import get_model_weights

    published: Any = get_model_weights(source.name)["DEFAULT"].transforms()
    return published if published.crop_size[0] == height else None


def transform(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """From a picture to what `model` takes: (channels, height, width), float32.

    Size and channels are the model's own. Mean, standard deviation and crop come from timm's ``pretrained_cfg``;
    torchvision's models get the transforms of their default weights; Hugging Face models what their
    ``preprocessor_config.json`` says (0.5 where there is none); models trained here none (mean 0, deviation 1).

    >>> import deadweight as dw
    >>> from PIL import Image
    >>> prepare = transform(dw.load("embedded:digits-vit"))
    >>> prepare(Image.new("L", (20, 20))).shape
    torch.Size([1, 8, 8])
    """
    from torchvision.transforms import v2

    channels, height, width = input_shape(model)
    mode = "L" if channels == 1 else "RGB"
    theirs = _torchvisions(model, height)
    if theirs is not None:
        return lambda picture: theirs(picture.convert(mode))
    mean, std, crop = _normalisation(model, channels)
    shorter = math.floor(min(height, width) / crop)
    resize = v2.Compose(
        [v2.Resize(shorter, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop((height, width))]
    )
    finish = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])
    return Preparation(lambda picture: resize(picture.convert(mode)), finish)
