"""Full disks, signals, Ctrl-C twice: what is finished stands, nobody is left behind, the same command goes on."""

import contextlib
import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
import toy
import toy_study  # noqa: F401  # registers the study
import yaml

from deadweight.errors import MachineError
from deadweight.lab import Outcome, Store, run_cells

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits")]


def _asked(folder, **options):
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(yaml.safe_dump({"study": "toy", **options}))
    return [sys.executable, "-m", "toy_study", "run", str(folder / "s.yaml"), "--out", str(folder / "run")]


def _begun(folder, cells):
    deadline = time.monotonic() + 120
    while not (folder / "run.log").exists() or len((folder / "run.log").read_text().split()) < cells:
        assert time.monotonic() < deadline
        time.sleep(0.02)


_SIGNALS = {
    "term": ([signal.SIGTERM], 143),
    "ctrl-c": ([signal.SIGINT], 130),
    "ctrl-c twice": ([signal.SIGINT, signal.SIGINT], 130),
    "ctrl-c many times": ([signal.SIGINT] * 6, 130),
    "ctrl-c, then term": ([signal.SIGINT, signal.SIGTERM], (130, 143)),
}


def _interrupted(folder, jobs, signals, pause):
    """(exit code, what it said, processes left) of a run whose whole group is signalled, as a terminal does."""
    command = [*_asked(folder, count=8, pause=0.4), "--jobs", str(jobs)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background shell ignores it
    )  # fmt: skip
    _begun(folder, 3)
    children = psutil.Process(running.pid).children(recursive=True)
    for number in signals:
        os.killpg(running.pid, number)
        time.sleep(pause)
    out, err = running.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=10)
    return running.returncode, out + err, alive


def test_ctrl_c_twice_ends_a_run_of_workers_and_it_goes_on(tmp_path):
    _check_signals(tmp_path, "ctrl-c twice", 2, 0.15)


@pytest.mark.soak
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("pause", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("name", _SIGNALS)
def test_any_signals_at_any_distance_end_a_run_and_it_goes_on(tmp_path, name, pause, jobs):
    _check_signals(tmp_path, name, jobs, pause)


def _check_signals(folder, name, jobs, pause):
    signals, code = _SIGNALS[name]
    found, said, alive = _interrupted(folder, jobs, signals, pause)
    assert found in (code if isinstance(code, tuple) else (code,)), said
    assert "Traceback" not in said
    assert not alive, "somebody was left behind"
    store = Store(folder / "run")
    assert not any(store.claimed(key) for key in store.folders())
    before = toy.results(folder / "run")
    again = subprocess.run(_asked(folder, count=8, pause=0.4), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = toy.results(folder / "run")
    assert before.items() <= after.items()
    assert len(after) == 8


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a mount of one's own needs root on Linux")
def test_a_disk_that_is_full_stops_the_run_and_more_room_lets_it_go_on(tmp_path):
    """A file system of 256 KB in a namespace of its own; then of 16 MB."""
    command = " ".join(_asked(tmp_path, count=40, name="x" * 4000))
    run, keep = tmp_path / "run", tmp_path / "kept"
    script = f"""mkdir -p {run} && mount -t tmpfs -o size=256k none {run} || exit 77
{command}; echo code $?
cp -r {run}/cells {keep}
mount -o remount,size=16m {run}
{command} >/dev/null; echo code $?
cp -r {run}/cells {keep}-after
"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("this machine lets nobody mount")
    assert re.findall(r"code (\d+)", done.stdout) == ["3", "0"], done.stderr
    assert "No space left" in done.stderr
    assert "the same command goes on" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    kept = {path.parent.name: path.read_bytes() for path in keep.rglob("record.json")}
    whole = {path.parent.name: path.read_bytes() for path in (tmp_path / "kept-after").rglob("record.json")}
    assert 0 < len(kept) < 40
    assert len(whole) == 40
    assert kept.items() <= whole.items()
    assert not list((tmp_path / "kept-after").rglob(".record.json.*"))


def test_a_disk_that_fills_at_any_write_loses_nothing(tmp_path, monkeypatch):
    """Every call that writes fails once, in turn."""
    cells, calls = toy.cells(3), ["write", "fsync", "replace", "mkdir", "open"]
    run_cells(cells, toy.work, Store(tmp_path / "whole"))
    for call in calls:
        for number in (0, 2):
            folder = tmp_path / f"{call}-{number}"
            real, left = getattr(os, call), [number]

            def full(*arguments, real=real, left=left, **more):
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **more)

            store = Store(folder)
            with monkeypatch.context() as patch:
                patch.setattr(os, call, full)
                with contextlib.suppress(MachineError):
                    run_cells(cells, _quiet, store)
            assert set(toy.results(folder)) <= set(toy.results(tmp_path / "whole"))
            run_cells(cells, _quiet, store)
            assert len(toy.results(folder)) == 3
            assert not list(folder.rglob(".record.json.*"))


def _quiet(cell, bench):
    return Outcome({"square": cell.params["number"] ** 2})


def test_a_file_size_limit_fails_the_cell_that_meets_it(tmp_path):
    """ulimit -f: the write fails with EFBIG, which is the cell's own trouble: the next one may be smaller."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store, cells = Store(tmp_path), [toy.one(number) for number in range(3)]

    def work(cell, bench):
        size = 200_000 if cell.params["number"] == 1 else 10
        return Outcome({"text": "x" * size})

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        run_cells(cells, work, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)
    assert [store.record(cell) is not None for cell in cells] == [True, False, True]
    assert "too large" in store.failure(cells[1]).error


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_two_runners_of_which_one_is_killed_again_and_again(tmp_path, seed):
    chance, command = random.Random(seed), [*_asked(tmp_path, count=10, pause=0.2), "--quiet"]
    steady = subprocess.Popen(command)
    for _ in range(3):
        other = subprocess.Popen(command)
        time.sleep(chance.uniform(2, 6))
        other.kill()
        other.wait()
    assert steady.wait(200) == 0
    assert len(toy.results(tmp_path / "run")) == 10
    run_cells(toy.cells(10, 0.2), toy.work, Store(tmp_path / "whole"))
    assert toy.results(tmp_path / "run") == toy.results(tmp_path / "whole")
