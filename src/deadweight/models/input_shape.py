"""What pictures a vision model takes, read off its modules and configuration."""

from __future__ import annotations

from typing import Any

from torch import nn


def input_shape(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) the model takes, read off its patch projection and configuration."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    config: Any = getattr(model, "config", None)
    embed: Any = getattr(model, "patch_embed", None)
    size: Any = getattr(embed, "img_size", None) or getattr(model, "image_size", None)
    if size is None and config is not None:
        size = getattr(getattr(config, "vision_config", config), "image_size", None)  # CLIP has two towers
    if size is None:
        size = (getattr(model, "default_cfg", None) or {}).get("input_size", (3, 224, 224))[-2:]
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = first.in_channels if first is not None else getattr(config, "num_channels", 3)
    return int(channels), int(height), int(width)
