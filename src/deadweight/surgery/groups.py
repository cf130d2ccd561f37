"""Which blocks share one MLP: patterns over block indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deadweight.errors import InputError, SurgeryError
from deadweight.registry import did_you_mean

Groups = list[list[int]]


def adjacent(depth: int, size: int) -> Groups:
    """Neighbours: (0, 1), (2, 3), …; the paper's pattern for size 2. The last group may be smaller."""
    return [list(range(start, min(start + size, depth))) for start in range(0, depth, size)]


def strided(depth: int, size: int) -> Groups:
    """Blocks as far apart as can be: for depth 12 and size 2, (0, 6), (1, 7), …"""
    groups = -(-depth // size)
    return [list(range(first, depth, groups)) for first in range(groups)]


def mirrored(depth: int, size: int) -> Groups:
    """From both ends towards the middle: for size 2, (0, last), (1, last − 1), …"""
    inward = [index // 2 if index % 2 == 0 else depth - 1 - index // 2 for index in range(depth)]
    return [sorted(inward[start : start + size]) for start in range(0, depth, size)]


PATTERNS: dict[str, Callable[[int, int], Groups]] = {"adjacent": adjacent, "strided": strided, "mirrored": mirrored}


def groups_of(depth: int, size: int, pattern: str | Sequence[Sequence[int]]) -> Groups:
    """The groups of blocks; every index of ``range(depth)`` is in exactly one.

    Parameters
    ----------
    pattern:
        ``adjacent``, ``strided``, ``mirrored``, or the groups themselves: lists of block indices (negative ones
        count from the end). Blocks in no list keep their own MLP, and `size` is not used.

    Raises
    ------
    InputError
        An unknown pattern, or a size below 1 or beyond the depth.
    SurgeryError
        An index out of range, or a block in two groups.
    """
    if isinstance(pattern, str):
        if pattern not in PATTERNS:
            raise InputError(
                f"unknown pattern {pattern!r}",
                expected="a pattern's name, or lists of block indices",
                cure=did_you_mean(pattern, sorted(PATTERNS)),
            )
        if size < 1:
            raise InputError(f"group size {size}", expected="at least 1", cure="size=2 shares between neighbours")
        if size > depth:
            raise InputError(
                f"group size {size} for {depth} blocks",
                expected=f"1 … {depth}",
                cure="size=2 shares between neighbours",
            )
        return PATTERNS[pattern](depth, size)
    explicit = [[block_index(index, depth) for index in group] for group in pattern if len(group)]
    listed = [index for group in explicit for index in group]
    twice = sorted({index for index in listed if listed.count(index) > 1})
    if twice:
        raise SurgeryError(f"block {twice[0]} is listed twice", expected="each block in at most one group")
    return explicit + [[index] for index in range(depth) if index not in listed]


def block_index(index: int, depth: int) -> int:
    """`index` counted from the start; raises :class:`SurgeryError` when there is no such block."""
    if not -depth <= index < depth:
        raise SurgeryError(f"block {index} does not exist", expected=f"0 … {depth - 1}, or -{depth} … -1 from the end")
    return int(index) % depth
