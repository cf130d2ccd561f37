"""How far a run is: cells done, running, failed and left, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from deadweight.lab.cell import Cell
from deadweight.lab.records import Failure, Record
from deadweight.lab.serialization import CorruptRecord
from deadweight.lab.store import Store

State = Literal["done", "running", "failed", "left"]
STATES: tuple[State, ...] = ("done", "running", "failed", "left")


@dataclass
class RunStatus:
    """The state of every cell, and what the finished ones took against what was expected of them."""

    cells: Sequence[Cell]
    states: dict[str, State] = field(default_factory=dict)
    took: float = 0.0
    expected: float = 0.0

    def counts(self) -> dict[str, dict[State, int]]:
        """Cells by study and state, studies in the order of the plan."""
        found: dict[str, dict[State, int]] = {}
        for cell in self.cells:
            row = found.setdefault(cell.study, dict.fromkeys(STATES, 0))
            row[self.states.get(cell.key, "left")] += 1
        return found

    def total(self, state: State) -> int:
        return sum(row[state] for row in self.counts().values())

    def finished(self, cell: Cell, seconds: float) -> None:
        """A cell is done after so many seconds of work."""
        self.states[cell.key] = "done"
        if cell.seconds > 0 and seconds > 0:
            self.took += seconds
            self.expected += cell.seconds

    def seconds_left(self) -> float | None:
        """Of work still to do, from the cells' own estimates, corrected by how the finished ones fared.

        None where cells give no estimate. As many cells run at a time as run now.
        """
        states = [(cell, self.states.get(cell.key, "left")) for cell in self.cells]
        rest = sum(cell.seconds for cell, state in states if state in ("left", "running"))
        if not any(cell.seconds for cell in self.cells):
            return None
        pace = self.took / self.expected if self.expected else 1.0
        return rest * pace / max(1, sum(state == "running" for _, state in states))


@dataclass(frozen=True)
class FolderStatus:
    """What lies in a run folder, against its plan.

    damaged: (key, reason) of records that are not whole; the next run does their cells again.
    orphans: keys of records that no cell of the plan has, e.g. of the study before it was edited; they are kept.
    """

    status: RunStatus
    failures: tuple[Failure, ...]
    damaged: tuple[tuple[str, str], ...]
    orphans: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every planned cell has its record."""
        return self.status.total("done") == len(self.status.cells)


def look_at(cells: Sequence[Cell], store: Store) -> FolderStatus:
    """Every planned cell's state, read from `store`; nothing is changed there."""
    status, failures, damaged = RunStatus(cells), [], []
    for cell in cells:
        found = store.look(cell.key)
        if isinstance(found, Record):
            status.finished(cell, float(found.measured.get("seconds") or 0))
            continue
        if isinstance(found, CorruptRecord):
            damaged.append((cell.key, found.reason))
        if store.claimed(cell.key):
            status.states[cell.key] = "running"
            continue
        failure = store.failure(cell)
        if failure.attempts:
            status.states[cell.key] = "failed"
            failures.append(failure)
    return FolderStatus(status, tuple(failures), tuple(damaged), tuple(orphans(cells, store)))


def orphans(cells: Sequence[Cell], store: Store) -> list[str]:
    """Keys of records in `store` that belong to none of `cells`."""
    planned = {cell.key for cell in cells}
    return [key for key in store.folders() if key not in planned and (store.folder_of(key) / "record.json").is_file()]


def format_duration(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    for unit, size, top in (("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < top:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"
