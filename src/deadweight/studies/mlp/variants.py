"""The models of the mlp study: a small ViT sized for the images, and the paper's variants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deadweight.data import ImageData, as_tensors
from deadweight.errors import InputError
from deadweight.loading import load, model_source
from deadweight.models import transform
from deadweight.models.transform import Preparation
from deadweight.registry import did_you_mean
from deadweight.surgery import group_mlps, shallow_mlps


@dataclass(frozen=True)
class Shape:
    """The small ViT: patches of `patch_size`, None for the smallest that leaves at most 4 × 4 of them."""

    patch_size: int | None = None
    dim: int = 48
    depth: int = 6
    heads: int = 4


def patch_for(size: tuple[int, int]) -> int:
    """The smallest patch that divides both sides and leaves at most four patches a side."""
    sides = range(-(-max(size) // 4), max(size) + 1)
    return next((side for side in sides if size[0] % side == 0 and size[1] % side == 0), min(size))


def fresh(model: str | None, shape: Shape, data: ImageData, seed: int, **changes: Any) -> nn.Module:
    """A model with first weights drawn from `seed`: the small ViT, or the architecture of a source string."""
    options: dict[str, Any] = {"img_size": list(data.size), "in_chans": data.channels, "num_classes": len(data.classes)}
    if model is None:
        patch = shape.patch_size or patch_for(data.size)
        options |= {"patch_size": patch, "embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads}
        options |= {"weight_init": "jax"}  # timm's other rules assume a width of hundreds and learn slowly at 48
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = load(model or "embedded:digits-vit", pretrained=False, **options, **changes)
    if model is None:
        _expect(built, data)
    return built


def preparation(model: str | None, size: int) -> Preparation:
    """Coloured pictures of `size` pixels a side, with the mean and deviation of the architecture (none for our ViT)."""
    options: dict[str, Any] = {"img_size": size} if model else {"img_size": size, "patch_size": size, "in_chans": 3}
    return transform(load(model or "embedded:digits-vit", pretrained=False, **options))


@torch.no_grad()
def _expect(vit: nn.Module, data: ImageData) -> None:
    """Start the patch projection as if images came with mean 0 and variance 1, so that they need not be changed."""
    pixels, _ = as_tensors(data.train)
    mean, spread = pixels.mean(), pixels.std().clamp_min(1e-6)
    projection: Any = vit.get_submodule("patch_embed.proj")
    projection.bias.sub_(projection.weight.sum((1, 2, 3)) * mean / spread)
    projection.weight.div_(spread)


@dataclass(frozen=True)
class Cuts:
    """The settings of the two surgeries, as the study's options name them."""

    size: int = 2
    pattern: str = "adjacent"
    scale: float = 2**-0.5
    keep: float = 0.5


Build = Callable[..., nn.Module]


def build_variant(name: str, build: Build, cuts: Cuts) -> nn.Module:
    """One of the paper's models; `build(**changes)` gives a fresh baseline.

    Grouped and shallow start from the very weights of the baseline; thin is made narrow, so that its first weights
    differ in number and distribution.
    """
    if name == "baseline":
        return build()
    if name == "grouped":
        return group_mlps(build(), cuts.size, pattern=cuts.pattern, scale=cuts.scale, inplace=True)
    if name == "shallow":
        return shallow_mlps(build(), cuts.keep, inplace=True)
    if name == "thin":
        return build(mlp_ratio=4.0 * cuts.keep)
    raise InputError(f"unknown variant {name!r}", expected="a variant", cure=did_you_mean(name, list(VARIANTS)))


VARIANTS: Mapping[str, str] = {
    "baseline": "as it is",
    "grouped": "MLPs shared between neighbours",
    "shallow": "MLPs cut to half their width",
    "thin": "MLPs made half as wide",
}


def check_trainable(model: str | None) -> None:
    """Refuse a source that names no architecture which could be sized for the images."""
    if model is not None and model_source(model).scheme not in ("timm", "embedded"):
        raise InputError(
            f"{model!r} cannot be sized for the images and trained",
            expected="timm:NAME, or nothing for a small ViT",
            cure="to examine a model as it is, give it as vision",
        )
