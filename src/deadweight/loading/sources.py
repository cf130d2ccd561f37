"""The kinds of model sources, and how a source string is checked."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from deadweight.errors import SourceError
from deadweight.loading.saved import load_saved
from deadweight.loading.timm_names import load_timm
from deadweight.models.embedded import load_embedded
from deadweight.models.hub import load_hub
from deadweight.models.language import load_gguf
from deadweight.models.vision import load_torchvision
from deadweight.registry import Registry, did_you_mean
from deadweight.source import Source, parse_source

Loader = Callable[..., nn.Module]

MODEL_SOURCES: Registry[Loader] = Registry("model source")
for _scheme, _loader in (
    ("timm", load_timm),
    ("torchvision", load_torchvision),
    ("hf", load_hub),
    ("gguf", load_gguf),
    ("embedded", load_embedded),
    ("file", load_saved),
):
    MODEL_SOURCES.add(_scheme, _loader)


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
