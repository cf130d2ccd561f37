"""Module paths that their owner gives: as text on the command line, and remembered on the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from deadweight.errors import InputError

EXAMPLE = "blocks=encoder.layers,embedding=patchify,mlp=ff,up=w1,down=w2,attention=attn"
_ATTRIBUTE = "_deadweight_paths"
_NUMBERS = ("prefix_tokens", "heads")


def parse_paths(text: str) -> dict[str, Any]:
    """``blocks=encoder.layers,mlp=ff,up=gate+up,down=down,prefix_tokens=1`` as :func:`deadweight.anatomy` takes it.

    Raises :class:`InputError` for anything else; what a path leads to is looked at with the model.

    >>> parse_paths("blocks=layers,embedding=patchify,up=gate+up,prefix_tokens=1")
    {'blocks': 'layers', 'embedding': 'patchify', 'up': ['gate', 'up'], 'prefix_tokens': 1}
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, given, value = (piece.strip() for piece in part.partition("="))
        if not given or not name or not value:
            raise InputError(f"paths: {part!r}", expected="NAME=PATH between commas", cure=f"for example {EXAMPLE}")
        if name in _NUMBERS and not value.isdigit():
            raise InputError(f"paths: {name}={value}", expected="a whole number")
        found[name] = int(value) if name in _NUMBERS else value == "true" if name == "has_cls" else value
        if "+" in value:
            found[name] = value.split("+")
    return found


def remember_paths(model: nn.Module, paths: Mapping[str, Any]) -> None:
    """Keep `paths` on the model, so that everything that asks for its anatomy finds them; copies keep them too."""
    setattr(model, _ATTRIBUTE, dict(paths))


def remembered_paths(model: nn.Module) -> dict[str, Any] | None:
    """What :func:`remember_paths` kept."""
    found = getattr(model, _ATTRIBUTE, None)
    return None if found is None else dict(found)


__all__ = ["EXAMPLE", "parse_paths", "remember_paths", "remembered_paths"]
