"""Where a model came from, kept on the model itself so that a saved one can be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_ATTRIBUTE = "_deadweight_source"


def set_origin(model: nn.Module, source: str, options: Mapping[str, Any] | None = None) -> None:
    """Remember that `model` was built from the source string `source` with keyword `options` (JSON values)."""
    setattr(model, _ATTRIBUTE, {"source": source, "options": dict(options or {})})


def origin(model: nn.Module) -> dict[str, Any] | None:
    """``{"source": text, "options": {…}}``, or None for a model deadweight did not load."""
    found = getattr(model, _ATTRIBUTE, None)
    return dict(found) if found is not None else None
