"""What a run's folder says of itself: to `status`, after an edit of the study, on a folder that is only to be read."""

import json
import os
import subprocess
import sys
import time

import pytest
import toy
import toy_study  # noqa: F401  # registers the study
import yaml

from deadweight.cli import main
from deadweight.errors import MachineError
from deadweight.lab import Store, run_cells
from deadweight.lab.status import look_at, orphans
from deadweight.studies import build_study
from deadweight.studies.frame.run import open_run, run

pytestmark = pytest.mark.slow


def _call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A study that ran, was edited twice, and ran each time in the same folder."""
    folder = tmp_path_factory.mktemp("edited")
    file = folder / "study.yaml"
    counts = {}
    for options in ({"count": 2}, {"count": 5}, {"count": 5, "pause": 0.001}, {"count": 4, "pause": 0.001}):
        file.write_text(yaml.safe_dump({"study": "toy", **options}))
        before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("record.json")}
        records = run(file, folder / "run")
        after = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("record.json")}
        assert before.items() <= after.items(), "a finished cell was done again"
        counts[str(options)] = (len(records), len(after) - len(before))
    return folder / "run", list(counts.values())


def test_after_an_edit_only_new_cells_run(edited):
    # cells the study has, cells done anew: three more, another pause for all, one fewer
    assert edited[1] == [(2, 2), (5, 3), (5, 5), (4, 0)]


def test_records_of_the_study_before_the_edit_are_kept_and_reported(edited, capsys):
    folder, _ = edited
    _, planned, store = open_run(folder)
    assert len(orphans(planned.cells, store)) == 6
    code, out, _ = _call(capsys, "status", folder)
    assert code == 0
    assert "6 records belong to no cell of the study as it is now" in out
    code, out, _ = _call(capsys, "status", folder, "--json")
    said = json.loads(out)
    assert (len(said["orphans"]), said["studies"]["toy"]["done"], said["damaged"]) == (6, 4, [])


def _half_done(folder):
    """A run of four cells: one done, one failed, one damaged, one not begun; and what a killed writer left."""
    study = build_study("toy", {"count": 4})
    run(study, folder, budget=-1.0)
    _, planned, store = open_run(folder)
    done, failed, damaged, left = planned.cells

    def work(cell, bench):
        if cell.key == failed.key:
            raise RuntimeError("out of [red]luck[/] \x1b[31m\nand more")
        return study.run(cell, bench)

    run_cells([done, failed, damaged], work, store)
    path = store.folder_of(damaged.key) / "record.json"
    path.write_bytes(path.read_bytes()[:200])
    path.with_name(".record.json.0a0a0a0a0a0a").write_text("{")
    (folder / ".findings.json.0b0b0b0b0b0b").write_text("{")
    (folder / ".cluster-0c0c0c0c0c0c").touch()
    (folder / ".notes").write_text("mine")
    return study, store, [cell.key for cell in (done, failed, damaged, left)]


def _names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_status_tells_each_cell_and_repair_mends_what_can_be_mended(tmp_path, capsys):
    _, _, (_, failed, damaged, _) = _half_done(tmp_path)
    before = _names(tmp_path)
    code, out, _ = _call(capsys, "status", tmp_path)
    assert code == 1
    assert out.splitlines()[1].split() == ["toy", "1", "0", "1", "2"]
    assert "failed: toy square 1 0.0: RuntimeError: out of [red]luck[/] �[31m (attempt 1)" in out
    assert f"damaged: {damaged}: not a whole record" in out
    assert "\x1b" not in out
    assert _names(tmp_path) == before, "looking changes nothing"

    code, out, _ = _call(capsys, "status", tmp_path, "--repair")
    assert code == 1
    assert f"cells/{damaged}: not a whole record" in out
    assert "removed .record.json.0a0a0a0a0a0a" in out
    assert "removed .findings.json.0b0b0b0b0b0b" in out
    after = _names(tmp_path)
    assert [name for name in after if "corrupt" in name and name.startswith(f"cells/{damaged}")]
    assert {name.rpartition("/")[2] for name in before - after} == {
        ".record.json.0a0a0a0a0a0a", ".findings.json.0b0b0b0b0b0b", ".cluster-0c0c0c0c0c0c", "record.json",
    }  # fmt: skip
    assert (tmp_path / ".notes").read_text() == "mine"

    code, out, _ = _call(capsys, "status", tmp_path, "--repair", "--json")
    said = json.loads(out)
    assert (said["repaired"], said["damaged"]) == ([], [])
    assert [one["key"] for one in said["failures"]] == [failed]


def test_the_next_run_does_what_is_lacking_and_nothing_else(tmp_path):
    study, store, keys = _half_done(tmp_path)
    path = store.folder_of(keys[0]) / "record.json"
    before = path.stat().st_mtime_ns
    records = run(study, tmp_path)
    assert [record.key for record in records] == keys
    assert path.stat().st_mtime_ns == before


def test_a_cell_under_way_is_running(tmp_path, capsys):
    _, store, keys = _half_done(tmp_path)
    _, planned, _ = open_run(tmp_path)
    with store.claim(planned.cells[3]):
        _, out, _ = _call(capsys, "status", tmp_path)
        assert out.splitlines()[1].split() == ["toy", "1", "1", "1", "1"]
        said = store.repair(planned.cells)
        assert not any(keys[3] in sentence for sentence in said)
        assert (tmp_path / ".findings.json.0b0b0b0b0b0b").exists(), "a runner is at work: it may be its own"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="a mount of one's own needs root on Linux")
def test_a_folder_that_can_only_be_read_is_looked_at_and_not_run(tmp_path):
    """For root no permission counts: the folder is mounted read-only, in a namespace of its own."""
    folder = tmp_path / "run"
    _half_done(folder)
    look = f"{sys.executable} -m toy_study status {folder} --json"
    go_on = f"{sys.executable} -m toy_study run {folder / 'study.yaml'} --out {folder}"
    script = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} || exit 77\n{look}\n{go_on}\n"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("this machine lets nobody mount")
    assert json.loads(done.stdout)["studies"]["toy"] == {"done": 1, "running": 0, "failed": 1, "left": 2}
    assert done.returncode == 3
    assert "read-only: choose another folder with --out" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_disk_that_says_read_only_is_told_with_the_cure(tmp_path, monkeypatch):
    import errno

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("deadweight.lab.store.tempfile.TemporaryFile", refuse)
    with pytest.raises(MachineError, match="read-only: choose another folder"):
        Store(tmp_path).prepare()


def test_clocks_that_jump_change_nothing(tmp_path, monkeypatch):
    """Hours to and fro, between any two looks at the clock on the wall: no file is lost, no duration is wrong."""
    jumps = iter([0, 9e9, -9e9, 5, 3e8] * 1000)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1.7e18 + 1e9 * next(jumps)))
    cells = [toy.one(0), toy.one(1, "raise"), toy.one(2)]
    store = Store(tmp_path / "run")
    for _ in range(3):
        run_cells(cells, toy.work, store)
        for cell in cells:  # damaged again and again: every copy is kept
            (store.folder_of(cell.key) / "record.json").write_text("{")
    run_cells(cells, toy.work, store)
    assert len(list((tmp_path / "run").rglob("record.corrupt-*"))) == 9
    assert store.failure(cells[1]).attempts == 4
    assert 0 <= store.record(cells[0]).measured["seconds"] < 60
    assert look_at(cells, store).status.total("done") == 2
