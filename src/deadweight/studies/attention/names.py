"""What mechanisms are called in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXACT = ("eager", "sdpa", "flash")  # the same function computed in different ways
_NAMES = {
    "eager": "eager attention",
    "sdpa": "PyTorch's fused attention (SDPA)",
    "flash": "the flash kernel",
    "gqa": "grouped-query attention",
    "mqa": "multi-query attention",
    "sliding_window": "sliding-window attention",
    "linear": "linear attention",
    "lsh": "LSH attention",
    "mla": "latent attention (MLA, which brings rotary positions)",
}
_OPTIONS = {"window": "window {}", "groups": "{} key-value heads", "buckets": "{} buckets", "rounds": "{} rounds"}


def named(mechanism: str, options: Mapping[str, Any] | None = None) -> str:
    """The mechanism as a sentence calls it, with the options that matter.

    >>> named("gqa", {"groups": 2})
    'grouped-query attention (2 key-value heads)'
    """
    extra = [text.format(options[name]) for name, text in _OPTIONS.items() if options and name in options]
    return _NAMES.get(mechanism, mechanism) + (f" ({', '.join(extra)})" if extra else "")


def same_function(one: str, other: str) -> bool:
    """Whether two mechanisms compute the same function."""
    return one == other or (one in EXACT and other in EXACT)


__all__ = ["EXACT", "named", "same_function"]
