"""How long a plan takes on so many machines: its cells handed out, in order, to whoever is free first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from deadweight.errors import InputError
from deadweight.lab.cell import Cell


@dataclass(frozen=True)
class Forecast:
    """What a plan asks for.

    seconds: of work, all cells one after another.
    longest: seconds of the longest chain of cells that need each other: no number of machines is faster.
    spans:   machines -> seconds until the last cell is done.
    """

    seconds: float
    longest: float
    spans: dict[int, float]


def forecast(cells: Sequence[Cell], machines: Sequence[int], jobs: int = 1) -> Forecast:
    """Simulate the grid on each number of machines, `jobs` cells at a time on each; a timing cell takes a whole one.

    Cells take as long as they say (``Cell.seconds``), wherever they run and whatever runs beside them.
    Raises :class:`InputError` for a number of machines or jobs below 1.
    """
    if jobs < 1 or any(number < 1 for number in machines):
        raise InputError(f"{list(machines)} machines of {jobs} jobs", expected="numbers of at least 1")
    chain: dict[str, float] = {}
    for cell in _in_order(cells):
        chain[cell.key] = cell.seconds + max((chain.get(key, 0.0) for key in cell.needs), default=0.0)
    spans = {number: _span(cells, number, jobs) for number in machines}
    return Forecast(sum(cell.seconds for cell in cells), max(chain.values(), default=0.0), spans)


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each after those it needs as far as they are among them."""
    left, done, ordered = list(cells), set[str](), list[Cell]()
    known = {cell.key for cell in cells}
    while left:
        ready = [cell for cell in left if all(key in done or key not in known for key in cell.needs)]
        if not ready:  # a circle, which no run could finish either
            return [*ordered, *left]
        ordered += ready
        done |= {cell.key for cell in ready}
        left = [cell for cell in left if cell.key not in done]
    return ordered


def _span(cells: Sequence[Cell], machines: int, jobs: int) -> float:
    """Seconds until the last cell is done, by stepping from one cell's end to the next."""
    waiting, known = list(cells), {cell.key for cell in cells}
    free, done, now = [jobs] * machines, set[str](), 0.0
    under_way: list[tuple[float, str, int, Cell]] = []  # (end, key, machine, cell)
    while waiting or under_way:
        still: list[Cell] = []
        for number, cell in enumerate(waiting):
            if not any(free):
                still += waiting[number:]
                break
            slots = jobs if cell.exclusive else 1
            place = max(range(machines), key=free.__getitem__)
            if free[place] < slots or not all(key in done or key not in known for key in cell.needs):
                still.append(cell)
                continue
            free[place] -= slots
            heapq.heappush(under_way, (now + cell.seconds, cell.key, place, cell))
        waiting = still
        if not under_way:  # cells that need each other in a circle
            break
        now, _, place, ended = heapq.heappop(under_way)
        free[place] += jobs if ended.exclusive else 1
        done.add(ended.key)
    return now
