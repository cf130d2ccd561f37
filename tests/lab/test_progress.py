"""What a person watching a run is shown, in a terminal and in a log."""

import io
import os
import re
import select
import subprocess
import sys
import time

import pytest
import toy
import yaml
from rich.console import Console

from deadweight.lab import Cell
from deadweight.lab import progress as watching
from deadweight.lab.progress import Watch
from deadweight.lab.status import RunStatus, format_duration

pytestmark = pytest.mark.slow


def _cells(count, study="mlp"):
    return [Cell(study, "train", {"variant": "baseline", "seed": number}, seconds=10) for number in range(count)]


def _watch(**more):
    shown = io.StringIO()
    return Watch(Console(file=shown, color_system=None, width=120, **more)), shown


def test_a_log_has_a_line_a_cell_with_done_running_failed_left_and_the_time(monkeypatch):
    watch, shown = _watch()
    cells = _cells(5)
    watch.planned(cells, cells[1:])
    for cell in cells[1:4]:
        watch.started(cell)
    watch.finished(cells[1], 20.0, None)
    watch.finished(cells[2], 1.0, "RuntimeError: out of luck\nand more")
    watch.started(cells[4])
    watch.finished(cells[3], 20.0, None)
    watch.finished(cells[4], 20.0, None)
    assert shown.getvalue().splitlines() == [
        "5 cells, 1 done before, about 40 s",
        "  2/5 done mlp train baseline 1  20.0 s  (2 running, 1 left, about 30 s to go)",  # 3 of 20 s, 2 at a time
        "  2/5 failed mlp train baseline 2  1.0 s  (1 running, 1 failed, 1 left, about 40 s to go)",
        "      RuntimeError: out of luck",
        "  3/5 done mlp train baseline 3  20.0 s  (1 running, 1 failed, about 20 s to go)",
        "  4/5 done mlp train baseline 4  20.0 s  (1 failed)",
    ]


def test_a_log_is_not_silent_for_long(monkeypatch):
    watch, shown = _watch()
    cell = _cells(1)[0]
    watch.planned([cell], [cell])
    watch.started(cell)
    now = time.monotonic()
    for minute in (0.5, 1.1, 1.5, 2.3):
        monkeypatch.setattr(watching.time, "monotonic", lambda minute=minute: now + 60 * minute)
        watch.note(cell, f"epoch {minute}", minute / 10)
    lines = shown.getvalue().splitlines()[1:]
    assert [line.split(";")[0].strip() for line in lines] == [
        "mlp train baseline 0: epoch 1.1 (11%)", "mlp train baseline 0: epoch 2.3 (23%)",
    ]  # fmt: skip
    assert "1 running" in lines[0]


def test_the_table_counts_by_study_and_shows_what_runs():
    watch, shown = _watch()
    cells = [*_cells(3), *_cells(2, "depth")]
    watch.planned(cells, cells[1:])
    watch.started(cells[1])
    watch.note(cells[1], "epoch 3 of 9", 0.33)
    watch.started(cells[3])
    watch.finished(cells[3], 1.0, "no")
    watch.console.print(watch.table())
    lines = shown.getvalue().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["study"] == ["done", "running", "failed", "left"]
    assert rows["depth"] == ["0", "0", "1", "1"]
    assert ["1", "1", "0", "1"] in [line.split()[1:] for line in lines if line.startswith("mlp ")]
    assert any("mlp train baseline 1" in line and "epoch 3 of 9" in line for line in lines)
    assert "about" in lines[-1]


@pytest.mark.parametrize(
    ("running", "took", "left"), [(1, 10.0, 20.0), (2, 10.0, 15.0), (1, 20.0, 40.0)], ids=["one", "two", "slow"]
)
def test_the_time_left_learns_from_what_is_done(running, took, left):
    cells = _cells(3 + (running - 1))
    tally = RunStatus(cells)
    tally.finished(cells[0], took)
    for cell in cells[1 : 1 + running]:
        tally.states[cell.key] = "running"
    assert tally.seconds_left() == left


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (300, "5 min"), (7200, "2 h"), (3e5, "3.47 days"), (89.6, "90 s")]
)
def test_durations_as_people_say_them(seconds, words):
    assert format_duration(seconds) == words


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
def test_a_terminal_shows_the_live_table(tmp_path):
    """A run in a pseudo-terminal, read as a person would see it."""
    import pty

    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"study": "toy", "count": 4, "pause": 0.7, "whats": ["raise"]}))
    command = [sys.executable, "-m", "toy_study", "run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run")]
    ours, theirs = pty.openpty()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"})  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        if select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
    running.wait(60)
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    rows = {tuple(map(int, row)) for row in re.findall(r"toy +(\d) +(\d) +(\d) +(\d)", text)}
    assert (1, 1, 1, 2) in rows, text[-2000:]
    assert re.search(r"study +done +running +failed +left", text)
    assert "half way" in text
    assert re.search(r"about [\d.]+ s left", text)
    assert len(toy.results(tmp_path / "run")) == 4
