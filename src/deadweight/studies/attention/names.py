"""What mechanisms are called in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deadweight.attention import MECHANISMS

_OPTIONS = {"window": "window {}", "groups": "{} key-value heads", "buckets": "{} buckets", "rounds": "{} rounds"}


def named(mechanism: str, options: Mapping[str, Any] | None = None) -> str:
    """The mechanism as a sentence calls it, with the options that matter.

    >>> named("gqa", {"groups": 2})
    'grouped-query attention (2 key-value heads)'
    """
    extra = [text.format(options[name]) for name, text in _OPTIONS.items() if options and name in options]
    label = getattr(MECHANISMS.get(mechanism), "label", "") or mechanism
    return label + (f" ({', '.join(extra)})" if extra else "")


def same_function(one: str, other: str) -> bool:
    """Whether two mechanisms compute the same function in different ways.

    >>> same_function("flash", "eager"), same_function("flash", "linear")
    (True, False)
    """
    first, second = (getattr(MECHANISMS.get(name), "function", "") for name in (one, other))
    return one == other or (first == second != "")


__all__ = ["named", "same_function"]
