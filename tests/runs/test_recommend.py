"""From findings to commands: each names the right model, and says what more data would do."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

import deadweight as dw
from deadweight.cli import app
from deadweight.errors import InputError
from deadweight.runs.recommend import actions, more_data, recommend

KEY = "0123456789abcdef"


def finding(id, verdict, *, study="mlp", claim="It removes 33% of the parameters.", **changes):
    base = {"id": id, "study": study, "claim": claim, "estimate": 0.0, "unit": "accuracy", "interval": [-0.004, 0.004],
            "level": 0.95, "n": 100, "verdict": verdict, "margin": None if verdict is None else 0.01,
            "evidence": [KEY], "command": f"deadweight {study}"}  # fmt: skip
    return {**base, **changes}


@pytest.fixture
def run(tmp_path):
    def write(findings, *, cell=None, **options):
        (tmp_path / "cells" / KEY).mkdir(parents=True)
        (tmp_path / "cells" / KEY / "record.json").write_text(json.dumps({"cell": cell or {}}))
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": "audit", **options}))
        (tmp_path / "findings.json").write_text(json.dumps({"schema": 1, "findings": findings}))
        return tmp_path

    return write


def test_a_users_model_is_compressed_to_the_size_that_was_found_enough(run):
    folder = run([finding("mlp-cut-shallow", "dead weight")], vision="file:my model", images="folder:my pictures")
    (advice,) = recommend(folder)
    assert shlex.split(advice.command) == [
        "deadweight", "compress", "file:my model", "--images", "folder:my pictures", "--parameters", "0.67",
        "--out", "smaller",
    ]  # fmt: skip


def test_a_language_model_is_compressed_on_text(run):
    claim = "Keeping two thirds removes 15% of the parameters and raises the loss on held-out text by 0.2%."
    folder = run([finding("mlp-cut-language-shallow", "dead weight", claim=claim)], language="hf:mine")
    (advice,) = recommend(folder)
    assert shlex.split(advice.command) == [
        "deadweight", "compress", "hf:mine", "--text", "embedded:stdlib", "--parameters", "0.85", "--out", "smaller",
    ]  # fmt: skip


def test_a_block_is_dropped_by_a_command_that_runs(run, monkeypatch):
    from deadweight.surgery import surgeries

    block = finding("depth-block-3", "dead weight", study="depth")
    folder = run([block], vision="timm:test_vit?pretrained=false", images="embedded:digits")
    (advice,) = recommend(folder)
    words = shlex.split(advice.command)
    assert words[:2] == ["python", "-c"]
    monkeypatch.chdir(folder)
    exec(words[2], {})  # what a shell would give to python
    (done,) = surgeries(dw.load("file:smaller"))
    assert done["name"] == "drop_blocks"
    assert done["arguments"]["indices"] == [2]


def test_the_model_an_audit_trained_is_found_through_what_a_cell_needs(run):
    folder = run([finding("depth-block-1", "dead weight", study="depth")], cell={"needs": ["kept"]})
    (folder / "cells" / "kept" / "model").mkdir(parents=True)
    (folder / "cells" / "kept" / "model" / "deadweight.json").write_text("{}")
    (advice,) = recommend(folder)
    assert f"file:{folder / 'cells' / 'kept' / 'model'}" in advice.command


def test_prompts_are_tried_with_fewer_demonstrations_and_on_more_items(run):
    rows = [finding("icl-topic-labels", "dead weight", study="icl"),
            finding("icl-topic-demonstrations", "undecided", study="icl", interval=[-0.03, 0.03])]  # fmt: skip
    folder = run(rows, cell={"params": {"task": "csv:a b.csv?text=t&label=l"}}, language="hf:model")
    dead, open_ = recommend(folder)
    start = ["deadweight", "icl", "--language", "hf:model", "--tasks", "csv:a b.csv?text=t&label=l"]
    assert shlex.split(dead.command) == [*start, "--k", "1", "--k", "2", "--k", "4"]
    assert shlex.split(open_.command)[:-1] == [*start, "--limit"]
    for advice in (dead, open_):
        called, _, _ = app.parse_args(shlex.split(advice.command)[1:], exit_on_error=False, print_error=False)
        assert called.__name__ == "icl"


def test_what_can_go_comes_first_and_measurements_ask_for_nothing(run):
    rows = [finding("a", "needed"), finding("b", None), finding("c", "undecided"), finding("d", "dead weight")]
    assert [advice.id for advice in recommend(run(rows))] == ["d", "c", "a"]


@pytest.mark.parametrize(
    ("half", "judged", "wanted"),
    [(0.02, 1, 400), (0.0101, 1, 110), (0.02, 10, 830), (0.2, 1, None)],
    ids=["twice-as-wide", "just-too-wide", "one-of-ten", "hopeless"],
)
def test_data_grow_with_the_square_of_the_width(half, judged, wanted):
    """n · (half width / distance to the margin)² = 400, rounded up; ten tests at once ask for 2.051 times it."""
    assert more_data(finding("x", "undecided", interval=[-half, half]), judged) == wanted


@pytest.mark.parametrize("changes", [{"interval": [None, 0.1]}, {"estimate": 0.01}, {"n": 0}, {"estimate": None}])
def test_no_amount_is_named_where_none_follows(changes):
    assert more_data(finding("x", "undecided", **changes), 1) is None


def test_a_run_without_options_or_records_still_gets_advice(tmp_path):
    told = actions(tmp_path, [finding("mlp-grouped", "dead weight"), finding("other", "dead weight", study="new")])
    assert told["mlp-grouped"].command == ""
    assert told["other"].command == "deadweight new"


@pytest.mark.parametrize("text", [None, "not json", "[]", '{"schema": 1}'], ids=["none", "text", "list", "empty"])
def test_a_folder_without_findings_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "findings.json").write_text(text)
    with pytest.raises(InputError, match="no findings that can be read"):
        recommend(tmp_path)
