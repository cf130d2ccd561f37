"""Cells in worker processes: what befalls one befalls no other, and the results are those of one process."""

import contextlib
import os
import threading

import pytest
import toy

from deadweight.errors import InputError
from deadweight.lab import Cell, Outcome, Store, run_cells
from deadweight.lab.bench import WAITS
from deadweight.lab.engines import EXECUTORS
from deadweight.lab.executor import InProcess
from deadweight.lab.limits import Limits, free_memory
from deadweight.lab.local import Processes
from deadweight.lab.machine_lock import machine

pytestmark = pytest.mark.slow

BAD = ["killed", "gone", "hang", "raise", "not a number"]


class _Diary:
    def __init__(self):
        self.lines = []

    def planned(self, cells, waiting):
        self.lines.append(("planned", len(cells), len(waiting)))

    def started(self, cell):
        self.lines.append(("started", cell.params["number"]))

    def note(self, cell, text, done):
        self.lines.append(("note", cell.params["number"], text, done))

    def finished(self, cell, seconds, error):
        self.lines.append(("finished", cell.params["number"], error))


@pytest.fixture(scope="module")
def mishaps(tmp_path_factory):
    """Five cells that end badly, one that is killed once, and three good ones, two at a time."""
    folder = tmp_path_factory.mktemp("mishaps")
    cells = [toy.one(number, what) for number, what in enumerate([*BAD, "killed once", None, None, None])]
    diary = _Diary()
    run_cells(cells, toy.work, Store(folder), engine=Processes(Limits(jobs=2, timeout=2.0)), observer=diary)
    return {cell.params["what"] or f"good {cell.params['number']}": cell for cell in cells}, Store(folder), diary


@pytest.mark.parametrize(
    ("what", "error", "attempts"),
    [
        ("killed", "SIGKILL", 2),
        ("gone", "exit code 7", 2),
        ("hang", "longer than 2 s", 1),
        ("raise", "RuntimeError: out of luck", 1),
        ("not a number", "not JSON compliant", 1),
    ],
    ids=BAD,
)
def test_a_cell_that_ends_badly_fails_alone_and_within_its_tries(mishaps, what, error, attempts):
    cells, store, _ = mishaps
    failure = store.failure(cells[what])
    assert error in failure.error
    assert failure.attempts == attempts
    assert store.record(cells[what]) is None


def test_the_others_have_their_records(mishaps):
    cells, store, _ = mishaps
    assert all(store.record(cell) is not None for name, cell in cells.items() if name.startswith("good"))


def test_a_worker_that_is_killed_once_is_forgiven(mishaps):
    cells, store, _ = mishaps
    assert store.record(cells["killed once"]).result["square"] == 25
    assert store.failure(cells["killed once"]).attempts == 1


def test_the_observer_hears_of_everything(mishaps):
    _, _, diary = mishaps
    assert diary.lines[0] == ("planned", 9, 9)
    assert ("note", 6, "half way", 0.5) in diary.lines
    assert ("finished", 8, None) in diary.lines
    assert sum(line[:2] == ("started", 0) for line in diary.lines) == 2


@pytest.mark.parametrize("limits", [Limits(jobs=2), Limits(jobs=1, timeout=60)], ids=["two", "one-with-timeout"])
def test_the_results_are_those_of_one_process_bit_for_bit(tmp_path, limits):
    cells = toy.cells(6)
    run_cells(cells, toy.work, Store(tmp_path / "here"))
    run_cells(cells, toy.work, Store(tmp_path / "there"), engine=EXECUTORS.get("local")(limits))
    assert toy.results(tmp_path / "here") == toy.results(tmp_path / "there")


def test_a_cell_that_wants_more_memory_than_it_may_have_fails_alone(tmp_path):
    cells = [toy.one(0, "eat"), toy.one(1)]
    run_cells(cells, toy.work, Store(tmp_path), engine=Processes(Limits(memory=2**31)))
    assert "memory" in Store(tmp_path).failure(cells[0]).error
    assert Store(tmp_path).record(cells[1]) is not None


def test_no_more_cells_run_at_a_time_than_memory_holds():
    assert Processes(Limits(jobs=8, memory=free_memory()))._jobs == 1


def test_a_timing_cell_runs_alone(tmp_path):
    cells = [Cell("toy", "span", {"number": n}, exclusive=n % 3 == 1) for n in range(6)]
    run_cells(cells, toy.span, Store(tmp_path), engine=Processes(Limits(jobs=2)))
    spans = {cell.key: Store(tmp_path).record(cell).measured for cell in cells}
    for cell in cells:
        if cell.exclusive:
            own = spans.pop(cell.key)
            assert all(one["ended"] <= own["began"] or own["ended"] <= one["began"] for one in spans.values())


@pytest.mark.skipif(os.name == "nt", reason="no shared locks there")
def test_waiting_for_the_machine_is_not_the_cells_own_time(tmp_path):
    """Another run times something for longer than this one's cells may take."""
    cells = [toy.one(0, exclusive=True), toy.one(1)]
    with contextlib.ExitStack() as other:
        other.enter_context(machine(alone=True))
        threading.Timer(2.5, other.pop_all().close).start()
        diary = _Diary()
        run_cells(cells, toy.work, Store(tmp_path), engine=Processes(Limits(jobs=2, timeout=1.5)), observer=diary)
    assert all(Store(tmp_path).record(cell) is not None for cell in cells)
    assert ("note", 0, WAITS, None) in diary.lines


def test_plain_runs_stay_in_this_process():
    assert isinstance(EXECUTORS.get("local")(Limits()), InProcess)


def test_work_that_cannot_travel_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be sent"):
        run_cells([toy.one(1)], lambda cell, bench: Outcome({}), Store(tmp_path), engine=Processes(Limits(jobs=2)))


@pytest.mark.parametrize(
    "limits",
    [{"jobs": -1}, {"retries": -1}, {"timeout": 0}, {"memory": 5}, {"cpus": -1}],
    ids=lambda given: next(iter(given)),
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(InputError, match=next(iter(limits))):
        Limits(**limits)


def test_an_unknown_executor_is_told_the_known_ones():
    with pytest.raises(InputError, match="did you mean 'local'"):
        EXECUTORS.get("locl")
