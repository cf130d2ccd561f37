"""The registry of mechanisms, and the one function that builds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from deadweight.attention.base import Mechanism
from deadweight.errors import InputError
from deadweight.registry import Registry, did_you_mean

MECHANISMS: Registry[Callable[..., Mechanism]] = Registry("mechanism")
MECHANISMS.add("eager", "deadweight.attention.eager:Eager")
MECHANISMS.add("sdpa", "deadweight.attention.sdpa:Sdpa")
MECHANISMS.add("flash", "deadweight.attention.flash:Flash")
MECHANISMS.add("gqa", "deadweight.attention.gqa:GroupedQuery")
MECHANISMS.add("mqa", "deadweight.attention.gqa:MultiQuery")
MECHANISMS.add("sliding_window", "deadweight.attention.sliding_window:SlidingWindow")
MECHANISMS.add("linear", "deadweight.attention.linear:Linear")
MECHANISMS.add("lsh", "deadweight.attention.lsh:Lsh")
MECHANISMS.add("mla", "deadweight.attention.mla:Mla")
MECHANISMS.add("block_sparse", "deadweight.attention.block_sparse:BlockSparse")
MECHANISMS.add("differential", "deadweight.attention.differential:Differential")
MECHANISMS.add("gated_delta", "deadweight.attention.gated_delta:GatedDelta")
MECHANISMS.add("retention", "deadweight.attention.retention:Retention")

_COMMON = ("dim", "heads", "rope")


def mechanism(name: str, dim: int, heads: int, *, rope: float | None = None, **options: Any) -> Mechanism:
    """A freshly initialised attention mechanism; causal unless it is asked not to be.

    Parameters
    ----------
    name:
        One of ``MECHANISMS.names()``.
    dim, heads:
        Width of the residual stream and number of query heads; each head is ``dim // heads`` wide.
    rope:
        Base of the rotary position embedding of queries and keys (10,000 is usual); None rotates nothing, except in
        mla, whose decoupled rotary part then uses 10,000.
    options:
        The mechanism's own, every one with a default: ``window``, ``groups``, ``buckets`` …

    Raises
    ------
    InputError
        Unknown name or option; heads that do not divide dim; an option out of range, named.

    Examples
    --------
    >>> import torch
    >>> layer = mechanism("linear", 32, 4)
    >>> layer(torch.zeros(2, 10, 32)).shape, layer.cache_bytes(tokens=10)  # (B, T, dim), bytes for one sequence
    (torch.Size([2, 10, 32]), 1152)
    """
    build = MECHANISMS.get(name)
    known = [word for word in inspect.signature(build).parameters if word not in _COMMON]
    for option in options:
        if option not in known:
            raise InputError(
                f"mechanism {name!r} has no option {option!r}",
                expected="one of its options",
                cure=did_you_mean(option, known),
            )
    return build(dim, heads, rope=rope, **options)
