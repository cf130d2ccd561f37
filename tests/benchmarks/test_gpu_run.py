"""A run of the GPU's sections: whatever becomes of one, the others go on and what was told is in the JSON."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu
import gpu_toy
import psutil
import pytest
import torch
from gpu_sections import SECTIONS, Plan, runner
from gpu_sections.page import page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CPU = Plan("cpu")


@pytest.fixture(autouse=True)
def nothing_loaded_ahead(monkeypatch):
    monkeypatch.setattr(runner, "PRELOAD", [])


def run(folder, *works, seconds=600.0, limit=60.0, **more):
    sections = {work.__name__: gpu_toy.section(work, limit) for work in works}
    told = runner.run(sections, more.pop("plan", CPU), folder / "gpu.json", seconds=seconds, **more)
    read = json.loads((folder / "gpu.json").read_text())
    assert read["complete"]
    assert list(read["sections"]) == list(told["sections"]) == [work.__name__ for work in works]
    return read["sections"]


@pytest.mark.slow
def test_rehearsed_every_section_runs_to_its_end_and_nothing_fails(tmp_path):
    """What is left for the day is the device."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--rehearse", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(out.read_text())
    assert {name: section["status"] for name, section in document["sections"].items()} == dict.fromkeys(
        SECTIONS, "done"
    )
    rows = [row for section in document["sections"].values() for row in section["rows"]]
    assert {row["name"]: row["reason"] for row in rows if row["status"] not in ("ok", "missing")} == {}
    absent = {row["name"].rpartition(": ")[2] for row in rows if row["status"] == "missing"}
    on_a_gpu_only = {
        "NVML", "classifier, float16, scaled loss", "flex_attention", "flash-attn", "fla", "SDPA cudnn_attention",
        "SDPA efficient_attention", "SDPA flash_attention",
    }  # fmt: skip
    assert absent <= on_a_gpu_only
    assert sum(row["status"] == "ok" for row in rows) > 80
    text = page(document)
    for title in ("Against the CPU's", "Joules", "The published order", "Kernels", "Ours over", "What is not there"):
        assert f"## {title}" in text
    assert "A rehearsal" in text


def test_the_limits_fit_into_the_time_of_a_call():
    assert sum(section.seconds for section in SECTIONS.values()) <= 480
    assert gpu.SECONDS < 480
    assert all(callable(section.load()) for section in SECTIONS.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_every_section_says_so(tmp_path):
    found = run(tmp_path, gpu_toy.quick, gpu_toy.hangs, plan=Plan())
    for section in found.values():
        (only,) = section["rows"]
        assert (section["status"], only["name"], only["status"]) == ("no gpu", "gpu", "missing")
        assert "torch" in only["reason"]
    text = page(json.loads((tmp_path / "gpu.json").read_text()))
    assert "No GPU has been reached yet" in text
    assert found["quick"]["reason"] in text


def test_a_section_past_its_limit_is_ended_and_what_it_told_is_kept(tmp_path):
    found = run(tmp_path, gpu_toy.hangs, gpu_toy.quick, limit=10.0)
    assert found["hangs"]["status"] == "late"
    assert [row["name"] for row in found["hangs"]["rows"]] == ["before"]
    assert 9 < found["hangs"]["seconds"] < 30
    assert not psutil.pid_exists(found["hangs"]["rows"][0]["pid"])
    assert found["quick"]["status"] == "done"


def test_a_section_that_dies_or_raises_leaves_the_others_alone(tmp_path):
    found = run(tmp_path, gpu_toy.dies, gpu_toy.raises, gpu_toy.quick)
    assert (found["dies"]["status"], len(found["dies"]["rows"])) == ("died", 1)
    assert "-9" in found["dies"]["reason"]
    assert [row["status"] for row in found["raises"]["rows"]] == ["ok", "failed"]
    assert found["raises"]["rows"][1]["reason"] == "ValueError: out of luck and of lines"
    assert [row["value"] for row in found["quick"]["rows"]] == [1.5, "nan"]


def test_out_of_memory_and_a_missing_package_are_rows_and_the_section_goes_on(tmp_path):
    found = run(tmp_path, gpu_toy.out_of_memory, gpu_toy.without_a_package)
    large, small = found["out_of_memory"]["rows"]
    assert (large["name"], large["status"], small["status"]) == ("large", "out of memory", "ok")
    assert "58.00 GiB" in large["reason"]
    peer, ours = found["without_a_package"]["rows"]
    assert (peer["status"], ours["status"]) == ("missing", "ok")
    assert "a_package_nobody_has" in peer["reason"]
    assert {section["status"] for section in found.values()} == {"done"}


def test_what_was_not_asked_for_or_has_no_time_left_is_left_out(tmp_path):
    found = run(tmp_path, gpu_toy.quick, gpu_toy.raises, asked=["quick"])
    assert (found["raises"]["status"], found["raises"]["reason"]) == ("left out", "not asked for")
    found = run(tmp_path, gpu_toy.quick, seconds=1.0)
    assert found["quick"]["status"] == "left out"
    assert "were over" in found["quick"]["reason"]


def test_libraries_that_chatter_do_not_hide_the_runs_own_lines(tmp_path, capfd):
    run(tmp_path, gpu_toy.chatters)
    assert "own words" not in capfd.readouterr().out


def test_a_run_that_is_killed_has_what_was_told_and_takes_its_section_along(tmp_path):
    out = tmp_path / "gpu.json"
    process = subprocess.Popen([sys.executable, "-m", "gpu_toy", str(out)], env=_environment())
    try:
        document = _until(out, lambda told: told["sections"].get("hangs", {}).get("rows"))
        section = document["sections"]["hangs"]["rows"][0]["pid"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    read = json.loads(out.read_text())
    assert read["complete"] is False
    assert [row["name"] for row in read["sections"]["quick"]["rows"]] == ["one", "two"]
    assert read["sections"]["hangs"]["status"] == "under way"
    assert "cut" in page(read)
    began = time.monotonic()
    while psutil.pid_exists(section):
        assert time.monotonic() - began < 30, "the section outlived its run"
        time.sleep(0.1)


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT / "benchmarks")])}


def _until(out, there):
    """The document once `there` holds; it can be read whole at any moment."""
    began = time.monotonic()
    while time.monotonic() - began < 120:
        if out.exists():
            told = json.loads(out.read_text())
            if there(told):
                return told
        time.sleep(0.05)
    raise AssertionError("it told nothing")
