"""From findings to commands: each names the right model, and says what more data would do."""

from __future__ import annotations

import json
import shlex

import pytest

import deadweight as dw
from deadweight.cli import app
from deadweight.errors import InputError
from deadweight.runs.recommend import recommend
from deadweight.studies.frame import Remedy
from deadweight.studies.frame.advice import actions
from deadweight.surgery import surgeries

KEY = "0123456789abcdef"
SETS = "sets of demonstrations"


def finding(id, verdict, *, study="mlp", claim="It removes 33% of the parameters.", **changes):
    half = changes.pop("half", 0.004)
    base = {"id": id, "study": study, "claim": claim, "estimate": 0.0, "unit": "accuracy", "interval": [-half, half],
            "label": "95 % interval", "level": 0.95, "n": 100, "p": 0.5, "verdict": verdict,
            "margin": None if verdict is None else 0.01,
            "sources": [{"name": "images", "n": 100, "half": half, "least": 2}], "evidence": [KEY],
            "command": f"deadweight {study}", "remedy": None}  # fmt: skip
    return {**base, **changes}


@pytest.fixture
def run(tmp_path):
    def write(findings, schema=2):
        (tmp_path / "findings.json").write_text(json.dumps({"schema": schema, "findings": findings}))
        return tmp_path

    return write


def test_a_users_model_is_compressed_to_the_size_that_was_found_enough(run):
    arguments = {"images": "folder:my pictures", "parameters": 0.67}
    remedy = Remedy("file:my model", "compress", arguments, "Cut it.").as_json()
    (advice,) = recommend(run([finding("mlp-cut-shallow", "dead weight", remedy=remedy)]))
    assert shlex.split(advice.command) == [
        "deadweight", "compress", "file:my model", "--images", "folder:my pictures", "--parameters", "0.67",
        "--out", "smaller",
    ]  # fmt: skip
    called, _, _ = app.parse_args(shlex.split(advice.command)[1:], exit_on_error=False, print_error=False)
    assert called.__name__ == "compress"


def test_a_block_is_dropped_by_a_command_that_runs(run, monkeypatch):
    remedy = Remedy("timm:test_vit?pretrained=false", "drop_blocks", {"indices": [2]}, "Remove the block.").as_json()
    folder = run([finding("depth-block-3", "dead weight", study="depth", remedy=remedy)])
    (advice,) = recommend(folder)
    words = shlex.split(advice.command)
    assert words[:2] == ["python", "-c"]
    monkeypatch.chdir(folder)
    exec(words[2], {})  # what a shell would give to python
    (done,) = surgeries(dw.load("file:smaller"))
    assert done["name"] == "drop_blocks"
    assert done["arguments"]["indices"] == [2]


def test_the_model_a_cell_of_the_run_saved_is_found_in_its_folder(run):
    remedy = Remedy("cell:kept", "drop_blocks", {"indices": [0]}, "Remove the block.").as_json()
    folder = run([finding("depth-block-1", "dead weight", study="depth", remedy=remedy)])
    (advice,) = recommend(folder)
    assert f"file:{folder / 'cells' / 'kept' / 'model'}" in advice.command


def test_prompts_are_tried_with_fewer_demonstrations(run):
    arguments = {"language": "hf:model", "tasks": "csv:a b.csv?text=t&label=l", "k": [1, 2, 4]}
    remedy = Remedy("", "icl", arguments, "Leave them out.").as_json()
    (advice,) = recommend(run([finding("icl-topic-labels", "dead weight", study="icl", remedy=remedy)]))
    start = ["deadweight", "icl", "--language", "hf:model", "--tasks", "csv:a b.csv?text=t&label=l"]
    assert shlex.split(advice.command) == [*start, "--k", "1", "--k", "2", "--k", "4"]
    called, _, _ = app.parse_args(shlex.split(advice.command)[1:], exit_on_error=False, print_error=False)
    assert called.__name__ == "icl"


def test_what_can_go_comes_first_and_measurements_ask_for_nothing(run):
    rows = [finding("a", "needed"), finding("b", None), finding("c", "undecided", half=0.02),
            finding("d", "dead weight")]  # fmt: skip
    assert [advice.id for advice in recommend(run(rows))] == ["d", "c", "a"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([("images", 100, 0.02)], ["images instead of 100", "all the images there are"]),
        ([("items", 100, 0.002), (SETS, 3, 0.05)], [f"{SETS} instead of 3", "--seeds 0 --seeds 1 --seeds 2 --seeds 3"]),
        ([("items", 100, 0.01), (SETS, 2, None)], [f"3 {SETS} instead of 2", "--seeds 0 --seeds 1 --seeds 2"]),
        ([("windows", 16, 0.05)], ["windows instead of 16"]),
    ],
    ids=["items", "sets dominate", "too few sets", "windows"],
)  # fmt: skip
def test_what_would_settle_it_is_what_dominates(tmp_path, sources, words):
    found = [{"name": name, "n": n, "half": half, "least": 3} for name, n, half in sources]
    half = max(half or 0.05 for *_, half in sources)
    advice = actions(tmp_path, [finding("x", "undecided", half=half, sources=found)])["x"]
    for word in words:
        assert word in f"{advice.sentence} {advice.command}"
    assert "items instead" not in advice.sentence or sources[0][0] == "items"


@pytest.mark.parametrize("changes", [{"estimate": 0.01}, {"sources": []}], ids=["on the margin", "nothing known"])
def test_no_amount_is_named_where_none_follows(tmp_path, changes):
    assert "no number can be named" in actions(tmp_path, [finding("x", "undecided", half=0.1, **changes)])["x"].sentence


def test_dead_weight_without_a_remedy_can_be_left_out(tmp_path):
    assert actions(tmp_path, [finding("other", "dead weight", study="new")])["other"].command == "deadweight new"


@pytest.mark.parametrize("text", [None, "not json", "[]", '{"schema": 1}'], ids=["none", "text", "list", "empty"])
def test_a_folder_without_findings_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "findings.json").write_text(text)
    with pytest.raises(InputError, match="no findings that can be read"):
        recommend(tmp_path)


def test_findings_of_an_earlier_version_are_told_to_be_rebuilt(run):
    with pytest.raises(InputError, match="earlier version") as refused:
        recommend(run([finding("a", "needed")], schema=1))
    assert "deadweight report" in str(refused.value)
