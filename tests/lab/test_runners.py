"""Two processes on one folder, and a process that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_RUNNER = """
import os, sys, time
from deadweight.lab import Cell, Outcome, Store, run_cells
def work(cell, bench):
    with open(sys.argv[2], "a") as log:
        log.write(cell.key + "\\n")
    time.sleep(float(sys.argv[3]))
    return Outcome({"double": 2 * cell.params["number"]})
run_cells([Cell("toy", "double", {"number": n}) for n in range(6)], work, Store(sys.argv[1]))
"""


def _start(folder, log, pause=0.05):
    return subprocess.Popen([sys.executable, "-c", _RUNNER, str(folder), str(log), str(pause)], env=os.environ)


def _results(folder: Path):
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("record.json")}
    return {key: (record["cell"], record["result"]) for key, record in records.items()}


def test_two_runners_do_each_cell_once(tmp_path):
    runners = [_start(tmp_path / "run", tmp_path / "log") for _ in range(2)]
    assert [runner.wait(120) for runner in runners] == [0, 0]
    done = (tmp_path / "log").read_text().split()
    assert len(done) == len(set(done)) == 6
    assert len(_results(tmp_path / "run")) == 6


def _kill_once(tmp_path, after):
    log = tmp_path / "log"
    runner = _start(tmp_path / "run", log, 0.2)
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().split()) < after:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.send_signal(signal.SIGKILL)
    assert runner.wait(60) == -signal.SIGKILL
    finished = _results(tmp_path / "run")
    assert _start(tmp_path / "run", log, 0.0).wait(120) == 0
    done = log.read_text().split()
    assert all(done.count(key) == 1 for key in finished)
    return _results(tmp_path / "run")


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path):
    assert _start(tmp_path / "whole", tmp_path / "other", 0.0).wait(120) == 0
    assert _kill_once(tmp_path, after=3) == _results(tmp_path / "whole")


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(50))
def test_kill_minus_nine_at_any_moment(tmp_path, round_):
    assert len(_kill_once(tmp_path, after=1 + round_ % 5)) == 6
