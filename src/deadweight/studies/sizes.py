"""How many bytes a plan is likely to leave on disk, for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.lab import Cell

# What the largest cell of each kind left on disk in the default audit, in bytes; a bigger model keeps more. The depth
# experiments are not in it: theirs is what mini-2511.21635's models of 4, 8 and 12 blocks left, and SmolLM2's 30.
_SEEN = {
    ("mlp", "train"): 700_000,
    ("mlp", "time"): 3_000,
    ("depth", "profile"): 2_900_000,
    ("depth", "shard"): 2_900_000,
    ("depth", "skip"): 4_000,
    ("depth", "positions"): 23_000,
    ("depth", "cls"): 3_400,
    ("depth", "shorten"): 1_040_000,
    ("depth", "exit"): 1_270_000,
    ("depth", "language"): 26_000,
    ("icl", "answers"): 21_000,
    ("attention", "train"): 9_000,
    ("attention", "time"): 54_000,
}
_OTHERWISE = 100_000


def bytes_of(cells: Sequence[Cell]) -> int:
    """A rough sum over the cells, from what cells of their kind left in the default audit."""
    return sum(_SEEN.get((cell.study, cell.kind), _OTHERWISE) for cell in cells)


def spoken(size: int) -> str:
    """In kB, MB, GB or TB, whichever reads best.

    >>> spoken(40_000), spoken(12_345_678), spoken(3_400_000_000)
    ('40 kB', '12 MB', '3.4 GB')
    """
    for unit, least in (("TB", 1e12), ("GB", 1e9)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def by_kind(cells: Sequence[Cell]) -> list[tuple[str, str, int, float, int]]:
    """(study, kind, cells, seconds of work, bytes) in the order of the plan."""
    kinds = dict.fromkeys((cell.study, cell.kind) for cell in cells)
    groups = [[cell for cell in cells if (cell.study, cell.kind) == kind] for kind in kinds]
    return [
        (study, kind, len(group), sum(cell.seconds for cell in group), bytes_of(group))
        for (study, kind), group in zip(kinds, groups, strict=True)
    ]


__all__ = ["by_kind", "bytes_of", "spoken"]
