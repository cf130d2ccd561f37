"""What the lab itself costs: a cell's claim, fsynced record and bookkeeping, and the listing of 10,000 cells.

The yardstick beside it is the least that is durable: the same bytes written under a temporary name, fsynced, renamed,
and the folder fsynced, with nothing else done. How fast that is, is the disk's.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from side_by_side import where

from deadweight.lab import Cell, Outcome, Store, Workbench, run_cells
from deadweight.lab.engines import EXECUTORS
from deadweight.lab.limits import Limits
from deadweight.lab.serialization import encode
from deadweight.lab.status import look_at

CELLS, LISTED = 200, 10_000


def work(cell: Cell, bench: Workbench) -> Outcome:
    return Outcome({"square": cell.params["number"] ** 2, "losses": [0.1 * n for n in range(50)]})


def _cells(count: int) -> list[Cell]:
    return [Cell("bench", "square", {"number": number}, seconds=1) for number in range(count)]


def _bare(folder: Path, count: int, data: bytes) -> float:
    """Seconds a file of the least that is durable."""
    taken = []
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        began = time.perf_counter()
        handle = os.open(place / "new", os.O_WRONLY | os.O_CREAT, 0o666)
        os.write(handle, data)
        os.fsync(handle)
        os.close(handle)
        os.replace(place / "new", place / "record.json")
        handle = os.open(place, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class _Clock:
    """An observer that notes when each cell ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def planned(self, cells: object, waiting: object) -> None:
        self.ends.append(time.perf_counter())

    def started(self, cell: Cell) -> None: ...

    def note(self, cell: Cell, text: str, done: float | None) -> None: ...

    def finished(self, cell: Cell, seconds: float, error: str | None) -> None:
        self.ends.append(time.perf_counter())

    def median(self) -> float:
        return statistics.median(b - a for a, b in zip(self.ends[1:], self.ends[2:], strict=False))


def main() -> None:
    print(where())
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as name:
        folder = Path(name)
        for jobs in (1, 2):
            clock = _Clock()
            store = Store(folder / f"jobs-{jobs}")
            engine = EXECUTORS.get("local")(Limits(jobs=jobs))
            run_cells(_cells(CELLS), work, store, observer=clock, engine=engine)
            place = "in this process" if jobs == 1 else f"in {jobs} worker processes"
            print(f"a cell that does nothing, {place}: {1000 * clock.median():.2f} ms (median of {CELLS})")
        record = next((folder / "jobs-1").rglob("record.json")).read_bytes()
        (folder / "bare").mkdir()
        bare = _bare(folder / "bare", CELLS, record)
        print(f"the same {len(record):,} bytes, fsynced, renamed, folder fsynced, alone: {1000 * bare:.2f} ms")
        cells = _cells(LISTED)
        store = Store(folder / "many")
        for cell in cells:  # as a run leaves them, without the hour of fsync
            place = store.folder_of(cell.key)
            place.mkdir(parents=True)
            (place / ".lock").touch()
        record_of = Store(folder / "jobs-1").record(cells[0])
        assert record_of is not None
        for cell in cells:
            (store.folder_of(cell.key) / "record.json").write_text(encode(replace(record_of, cell=cell)))
        began = time.perf_counter()
        standing = look_at(cells, store)
        taken = time.perf_counter() - began
        assert standing.whole
        print(f"every one of {LISTED:,} records read, checked against its digest and counted: {taken:.2f} s")


if __name__ == "__main__":
    main()
