"""timm's names, and ours beside them: vision transformers with shared, cut or narrow MLPs (arXiv 2512.01059)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from deadweight.models.provenance import set_origin
from deadweight.models.vision import build_timm
from deadweight.source import Source
from deadweight.surgery import group_mlps, shallow_mlps

SIZES: Mapping[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


def _grouped(model: nn.Module) -> nn.Module:
    """adjacent blocks share an MLP, its weights scaled by 1/√2"""
    return group_mlps(model, 2, scale=2**-0.5, inplace=True)


def _shallow(model: nn.Module) -> nn.Module:
    """the whole model is built, then each MLP keeps the first half of its hidden units"""
    return shallow_mlps(model, 0.5, inplace=True)


def _thin(model: nn.Module) -> nn.Module:
    """each MLP is built half as wide"""
    return model


VARIANTS: Mapping[str, Callable[[nn.Module], nn.Module]] = {"grouped": _grouped, "shallow": _shallow, "thin": _thin}


def _configuration(base: str) -> Any:
    """Input size, mean and deviation of `base`; no weights, for none are published."""
    from timm.models import get_pretrained_cfg

    return dataclasses.replace(get_pretrained_cfg(base), url="", hf_hub_id=None, file=None, custom_load=False, tag="")


def _entry(base: str, variant: str, shape: Mapping[str, int]) -> Callable[..., nn.Module]:
    """What timm calls for the name ``{base}_{variant}``."""
    from timm.models import build_model_with_cfg
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    name = f"{base}_{variant}"
    narrow = {"mlp_ratio": 2.0} if variant == "thin" else {}

    def build(**options: Any) -> nn.Module:
        """The cut happens before weights are read, so that a checkpoint of the cut model fits."""
        model: nn.Module = VisionTransformer(**options)
        plain = {key: value for key, value in options.items() if isinstance(value, (str, int, float, bool, list))}
        set_origin(model, f"timm:{base}", plain)  # with the log of surgeries: a saved one needs no import of this
        return VARIANTS[variant](model)

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        indices = options.pop("out_indices", 3)
        model: nn.Module = build_model_with_cfg(
            build,
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": indices, "feature_cls": "getter"},
            **{"patch_size": 16, **shape, **narrow, **options},
        )
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{base} of arXiv 2512.01059, {variant}: {VARIANTS[variant].__doc__}."
    return entry


default_cfgs: dict[str, Any] = {}  # timm reads it in the module that registers a name


def configurations() -> dict[str, Any]:
    """timm's default configurations of our names."""
    from timm.models import generate_default_cfgs

    names = {f"vit_{size}_patch16_224": VARIANTS for size in SIZES}
    found: dict[str, Any] = generate_default_cfgs(
        {f"{base}_{variant}": _configuration(base) for base, variants in names.items() for variant in variants}
    )
    return found


def register_names() -> None:
    """Make our names known to timm; again is no harm."""
    import timm
    from timm.models import register_model

    default_cfgs.update(configurations())
    for size, shape in SIZES.items():
        for variant in VARIANTS:
            if not timm.is_model(f"vit_{size}_patch16_224_{variant}"):
                register_model(_entry(f"vit_{size}_patch16_224", variant, shape))


def register_ours(source: Source) -> None:
    """Make our names known to timm where `source` is one of them."""
    if source.name.endswith(tuple(f"_{variant}" for variant in VARIANTS)):
        register_names()


def load_timm(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``timm:NAME``: any model timm knows by name, and ours."""
    register_ours(source)
    return build_timm(source, pretrained=pretrained, **kwargs)
