"""How many bytes a plan is likely to leave on disk, for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.lab import Cell
from deadweight.studies.frame.study import STUDIES

_UNKNOWN = 100_000  # of a cell whose study is not known here


def bytes_of(cells: Sequence[Cell]) -> int:
    """A rough sum over the cells, from what each experiment says a cell of its kind leaves."""
    return sum(_bytes_per_cell(cell) for cell in cells)


def _bytes_per_cell(cell: Cell) -> int:
    if cell.study not in STUDIES:
        return _UNKNOWN
    kinds = {experiment.kind: experiment.bytes_per_cell for experiment in STUDIES.get(cell.study).EXPERIMENTS}
    return kinds.get(cell.kind, _UNKNOWN)


def format_bytes(size: int) -> str:
    """In kB, MB, GB or TB, whichever reads best.

    >>> format_bytes(40_000), format_bytes(12_345_678), format_bytes(3_400_000_000)
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


__all__ = ["by_kind", "bytes_of", "format_bytes"]
