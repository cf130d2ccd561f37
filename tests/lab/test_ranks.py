"""Processes that torchrun started together: training cells are shared, everything else is done once."""

import os
import subprocess
import sys

import pytest
import yaml

from deadweight.errors import InputError
from deadweight.lab import Store
from deadweight.studies.frame.run import open_run, run

pytestmark = pytest.mark.slow

TINY = {"study": "mlp", "limit": 60, "epochs": 2, "dim": 16, "depth": 2, "heads": 2, "patch_size": 4,
        "variants": ["baseline", "grouped"], "seeds": [0]}  # fmt: skip


def _two(folder, options):
    """`deadweight run` in two processes of this machine, as a person starts it."""
    folder.mkdir(exist_ok=True)
    (folder / "asked.yaml").write_text(yaml.safe_dump(options))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    verb = ["-m", "toy_study", "run", str(folder / "asked.yaml"), "--out", str(folder / "run")]
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run([*launcher, *verb], capture_output=True, text=True, env=kept, timeout=200)


def test_training_cells_are_shared_and_the_others_done_once(tmp_path):
    done = _two(tmp_path, TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The page:") == 1
    _, planned, store = open_run(tmp_path / "run")
    found = {cell.kind: store.record(cell) for cell in planned.cells}
    assert [cell.kind for cell in planned.cells] == ["train", "train", "time"]
    assert found["train"].context["processes"] == 2
    assert "processes" not in found["time"].context
    assert not list((tmp_path / "run").rglob("attempts"))
    assert not list((tmp_path / "run").rglob("checkpoint"))
    alone = run(_written(tmp_path), tmp_path / "alone")
    for one in alone.where(kind="train"):
        shared = store.record(one.cell).result
        assert shared["parameters"] == one.result["parameters"]
        # the mean of two halves is the mean of the whole but for its rounding
        assert shared["curves"]["train_loss"] == pytest.approx(one.result["curves"]["train_loss"], abs=1e-2)


def _written(folder):
    return folder / "asked.yaml"


@pytest.mark.soak
def test_a_process_that_fails_fails_the_cell_and_the_rest_go_on(tmp_path):
    options = {"study": "toy", "count": 2, "spread": True, "whats": ["raise", "second fails"]}
    done = _two(tmp_path, options)
    assert "2 cells lack their record" in done.stdout
    _, planned, store = open_run(tmp_path / "run")
    errors = [store.failure(cell).error for cell in planned.cells[:2]]
    assert errors[0] == "RuntimeError: out of luck"
    assert "another process of this training failed" in errors[1]
    assert all(store.record(cell) is not None for cell in planned.cells[2:])


@pytest.mark.soak
def test_with_nothing_left_to_do_all_processes_end(tmp_path):
    options = {"study": "toy", "count": 3, "spread": True}
    assert _two(tmp_path, options).returncode == 0
    log = (tmp_path / "run.log").read_text()
    assert len(log.split()) == 6, "three cells, two processes each"
    done = _two(tmp_path, options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.log").read_text() == log
    assert len(Store(tmp_path / "run").folders()) == 3


@pytest.mark.parametrize("more", [{"jobs": 2}, {"timeout": 5.0}], ids=["jobs", "timeout"])
def test_a_launcher_and_worker_processes_are_one_too_many(tmp_path, monkeypatch, more):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="started together"):
        run("mini-2512.01059", tmp_path, **more)
