"""What the factories of the libraries take: parameter -> the plain types its value may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deadweight.signatures import class_parameters, value_types
from deadweight.source import Source


def timm_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind a timm name takes."""
    import timm

    return class_parameters(_built(lambda: timm.create_model(source.name, pretrained=False)))


def torchvision_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind a torchvision name takes."""
    from torchvision import models

    return class_parameters(_built(lambda: models.get_model(source.name, weights=None)))


def embedded_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind an embedded model takes; nothing where its weights come with it."""
    from timm.models.vision_transformer import VisionTransformer

    from deadweight.models.embedded import DIGITS_VIT

    return class_parameters(VisionTransformer) if source.name == DIGITS_VIT else {}


def hub_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """The plain settings of a Hugging Face configuration, with the types of the values they have."""
    from deadweight.models.hub import config_of

    config = config_of(source)
    found = {name: value_types(value) for name, value in config.to_dict().items() if not name.startswith("_")}
    found |= {"num_labels": (int,), "attn_implementation": ("eager", "sdpa", "flash_attention_2")}
    return {name: kinds for name, kinds in found.items() if kinds}


def _built(build: Callable[[], nn.Module]) -> type[nn.Module]:
    with torch.device("meta"):
        return type(build())


__all__ = ["embedded_parameters", "hub_parameters", "timm_parameters", "torchvision_parameters"]
