"""How many bytes a plan is likely to leave on disk, for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.lab import Cell

# What the largest cell of each kind left on disk in the default audit, in bytes; a bigger model keeps more.
_SEEN = {
    ("mlp", "train"): 700_000,
    ("mlp", "time"): 3_000,
    ("depth", "profile"): 2_900_000,
    ("depth", "skip"): 4_000,
    ("icl", "answers"): 21_000,
    ("attention", "train"): 9_000,
    ("attention", "time"): 54_000,
}
_OTHERWISE = 100_000


def bytes_of(cells: Sequence[Cell]) -> int:
    """A rough sum over the cells, from what cells of their kind left in the default audit."""
    return sum(_SEEN.get((cell.study, cell.kind), _OTHERWISE) for cell in cells)


def spoken(size: int) -> str:
    """In kB or MB, whichever reads better.

    >>> spoken(40_000), spoken(12_345_678)
    ('40 kB', '12 MB')
    """
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


__all__ = ["bytes_of", "spoken"]
