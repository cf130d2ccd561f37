"""Vision models of timm and torchvision."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from typing import Any

from torch import nn

from deadweight.errors import SourceError
from deadweight.network import hub_reach
from deadweight.registry import did_you_mean
from deadweight.source import Source


def no_weights(source: Source, reason: str) -> SourceError:
    """The one error for weights that cannot be had: why, and both ways out."""
    return SourceError(
        f"the pretrained weights of {source.text!r} cannot be had: {reason}",
        expected=f"{source.scheme}: means pretrained weights, from the local cache or the network",
        cure=f"either use {source.scheme}:{source.name}?pretrained=false for random weights, or bring the weights: "
        "fill the cache on a machine with network, or save the model there with dw.save and give file:FOLDER",
    )


def fetched(source: Source, build: Callable[[], nn.Module]) -> nn.Module:
    """Run `build`, which may download weights; what the network or cache refuses becomes :func:`no_weights`."""
    with hub_reach() as reachable:
        try:
            return build()
        except (OSError, urllib.error.URLError) as problem:
            where = "" if reachable else "the hub cannot be reached and the local cache does not hold them; "
            raise no_weights(source, f"{where}{str(problem).splitlines()[0]}") from problem


def require_timm(source: Source) -> None:
    """Refuse a name timm does not know, naming the likeliest."""
    import timm

    if not timm.is_model(source.name.partition(".")[0]):
        close = timm.list_models(f"*{source.name[:8]}*")[:200] or timm.list_models("vit_*")
        raise SourceError(
            f"timm has no model {source.name!r}",
            expected="a name of timm.list_models()",
            cure=did_you_mean(source.name, close)[:300],
        )


def require_torchvision(source: Source) -> None:
    """Refuse a name torchvision does not know, naming the likeliest."""
    from torchvision import models

    if source.name not in models.list_models(module=models):
        raise SourceError(
            f"torchvision has no model {source.name!r}",
            expected="a name of torchvision.models.list_models()",
            cure=did_you_mean(source.name, models.list_models(module=models))[:300],
        )


def build_timm(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``timm:NAME``: any model timm knows by name."""
    import timm

    require_timm(source)
    if pretrained is False:
        untrained: nn.Module = timm.create_model(source.name, pretrained=False, **kwargs)
        return untrained
    try:
        return fetched(source, lambda: timm.create_model(source.name, pretrained=True, **kwargs))
    except RuntimeError as problem:
        if "pretrained" not in str(problem).lower():
            raise
        raise no_weights(source, str(problem).splitlines()[0]) from problem


def load_torchvision(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``torchvision:NAME``: any classification model torchvision knows by name."""
    from torchvision import models

    require_torchvision(source)
    if pretrained is False:
        return models.get_model(source.name, weights=None, **kwargs)  # type: ignore[no-any-return]
    return fetched(source, lambda: models.get_model(source.name, weights="DEFAULT", **kwargs))
