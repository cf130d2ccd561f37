"""The preprocessing that belongs to a vision model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from deadweight.models.provenance import origin
from deadweight.source import parse_source

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def _normalisation(model: nn.Module, channels: int) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """(mean, standard deviation, share of the shorter side kept by the centre crop)."""
    recorded = origin(model) or {}
    if recorded.get("source", "").startswith("embedded:") or not hasattr(model, "default_cfg"):
        scheme = parse_source(recorded["source"]).scheme if recorded else ""
        if scheme == "torchvision":
            return _IMAGENET_MEAN, _IMAGENET_STD, 224 / 256
        if hasattr(model, "config"):
            return (0.5,) * channels, (0.5,) * channels, 1.0
        return (0.0,) * channels, (1.0,) * channels, 1.0
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or model.default_cfg  # type: ignore[assignment]
    if len(config.get("mean", ())) != channels:
        return (0.0,) * channels, (1.0,) * channels, 1.0
    return tuple(config["mean"]), tuple(config["std"]), float(config.get("crop_pct") or 1.0)


def transform(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """From a picture to what `model` takes: (channels, height, width), float32.

    Size and channels are the model's own. Mean, standard deviation and crop come from timm's ``pretrained_cfg``;
    torchvision's models get ImageNet's; Hugging Face models the values of their image processor's default (0.5);
    models trained here none (mean 0, standard deviation 1).
    """
    from torchvision.transforms import v2

    channels, height, width = input_shape(model)
    mean, std, crop = _normalisation(model, channels)
    steps: list[Any] = [v2.Resize(round(min(height, width) / crop), interpolation=v2.InterpolationMode.BICUBIC)]
    steps += [v2.CenterCrop((height, width)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    pipeline = v2.Compose([*steps, v2.Normalize(list(mean), list(std))])
    mode = "L" if channels == 1 else "RGB"

    def prepare(picture: Image.Image) -> Tensor:
        prepared: Tensor = pipeline(picture.convert(mode))
        return prepared

    return prepare
