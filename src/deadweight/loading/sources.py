"""The kinds of model sources, and how a source string is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.anatomy.paths import parse_paths
from deadweight.errors import SourceError
from deadweight.loading.own import load_own
from deadweight.loading.saved import load_saved
from deadweight.loading.timm_names import load_timm, register_ours
from deadweight.models.embedded import load_embedded
from deadweight.models.factories import (
    embedded_parameters,
    hub_parameters,
    timm_parameters,
    torchvision_parameters,
)
from deadweight.models.hub import load_hub
from deadweight.models.language import load_gguf
from deadweight.models.vision import load_torchvision, require_timm, require_torchvision
from deadweight.registry import Registry, did_you_mean
from deadweight.signatures import typed_options
from deadweight.source import Source, parse_source
from deadweight.source_options import MODEL_OPTIONS

Loader = Callable[..., nn.Module]

MODEL_SOURCES: Registry[Loader] = Registry("model source")
for _scheme, _loader in (
    ("timm", load_timm),
    ("torchvision", load_torchvision),
    ("hf", load_hub),
    ("gguf", load_gguf),
    ("embedded", load_embedded),
    ("file", load_saved),
    ("python", load_own),
):
    MODEL_SOURCES.add(_scheme, _loader)
MODEL_SOURCES.add("checkpoint", "deadweight.loading.load:load_told")


def model_source(text: str) -> Source:
    """Parse a model source and check its scheme; raises :class:`SourceError` with what is known."""
    source = parse_source(text)
    if source.scheme not in MODEL_SOURCES:
        raise SourceError(
            f"unknown kind of model source {source.scheme!r} in {text!r}",
            expected=f"one of {', '.join(f'{name}:' for name in MODEL_SOURCES.names())}",
            cure=did_you_mean(source.scheme, MODEL_SOURCES.names()),
        )
    return source


def model_options(source: Source) -> dict[str, Any]:
    """What follows ``?`` and belongs to the library's factory, as values of the types it takes.

    Raises :class:`SourceError` that lists the options there are for any other, ``MODEL_OPTIONS`` aside. Sources of
    another package's kind read their options themselves.
    """
    own = MODEL_OPTIONS.get(source.scheme)
    if own is None or source.scheme == "python" or set(source.options) <= set(own):
        return {}
    factory = _FACTORIES.get(source.scheme)
    return typed_options(source, own, factory(source) if factory else {})


def describe_by_paths(model: nn.Module, source: Source, kind: str | None = None) -> None:
    """Keep the paths that ``?paths=`` gives on the model, once they are seen to lead somewhere."""
    if "paths" in source.options:
        paths = parse_paths(source.options["paths"])
        anatomy(model, paths={**({} if kind is None else {"kind": kind}), **paths})


def _timm(source: Source) -> dict[str, tuple[Any, ...]]:
    register_ours(source)
    require_timm(source)
    return timm_parameters(source)


def _torchvision(source: Source) -> dict[str, tuple[Any, ...]]:
    require_torchvision(source)
    return torchvision_parameters(source)


_FACTORIES: Mapping[str, Callable[[Source], dict[str, tuple[Any, ...]]]] = {
    "timm": _timm, "torchvision": _torchvision, "hf": hub_parameters, "embedded": embedded_parameters,
}  # fmt: skip
