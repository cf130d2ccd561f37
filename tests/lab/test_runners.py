"""Several processes on one folder, and processes that are killed at random moments."""

import random
import signal
import subprocess
import sys
import time

import pytest
import toy

from deadweight.lab import Store, run_cells

pytestmark = pytest.mark.slow


def _start(folder, **options):
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen([sys.executable, "-m", "toy", str(folder), *words])


def _log(folder):
    log = folder.with_suffix(".log")
    return log.read_text().split() if log.exists() else []


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("runners", "jobs"), [(4, 1), (2, 2)], ids=["four", "two-of-two-workers"])
def test_runners_on_one_folder_do_each_cell_exactly_once(tmp_path, runners, jobs):
    folder = tmp_path / "run"
    running = [_start(folder, count=16, pause=0.05, jobs=jobs) for _ in range(runners)]
    assert [runner.wait(200) for runner in running] == [0] * runners
    done = _log(folder)
    assert sorted(done) == sorted(cell.key for cell in toy.cells(16, 0.05))
    assert len(toy.results(folder)) == 16


def _killed_again_and_again(folder, seed, kills, pause, jobs):
    """Start, kill -9 at a random moment, check that no record was lost or changed, and so on; then let it finish."""
    chance = random.Random(seed)
    for _ in range(kills):
        before, began = toy.results(folder), len(_log(folder))
        runner = _start(folder, pause=pause, jobs=jobs)
        _wait_for(lambda began=began, runner=runner: len(_log(folder)) > began or runner.poll() is not None)
        time.sleep(chance.uniform(0, 4 * pause))
        runner.send_signal(signal.SIGKILL)
        runner.wait(60)
        after = toy.results(folder)
        assert before.items() <= after.items()
    assert _start(folder, pause=pause, jobs=jobs).wait(120) == 0
    return toy.results(folder)


def _whole(folder, pause):
    run_cells(toy.cells(6, pause), toy.work, Store(folder))
    return toy.results(folder)


@pytest.mark.parametrize("jobs", [1, 2], ids=["in-process", "two-workers"])
def test_kill_minus_nine_loses_and_changes_nothing(tmp_path, jobs):
    assert _killed_again_and_again(tmp_path / "run", jobs, jobs, 0.06, jobs) == _whole(tmp_path / "whole", 0.06)


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(50))
def test_fifty_rounds_of_kill_minus_nine(tmp_path, round_):
    pause = (0.0, 0.02, 0.1)[round_ % 3]
    found = _killed_again_and_again(tmp_path / "run", round_, 2, pause, jobs=1 + round_ % 2)
    assert found == _whole(tmp_path / "whole", pause)
    assert not list((tmp_path / "run").rglob("record.corrupt-*"))


def test_a_killed_run_leaves_no_worker_behind_that_holds_a_cell(tmp_path):
    folder = tmp_path / "run"
    runner = _start(folder, count=4, pause=30, jobs=2)
    _wait_for(lambda: len(_log(folder)) == 2)
    held = [key for key in Store(folder).folders() if Store(folder).claimed(key)]
    assert len(held) == 2
    runner.send_signal(signal.SIGKILL)
    runner.wait(60)
    _wait_for(lambda: not any(Store(folder).claimed(key) for key in held), 20)
