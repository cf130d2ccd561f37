"""deadweight in lm-evaluation-harness, beside the harness's own HFLM, on a local task the harness runs itself."""

import json
import os
import subprocess
import sys

import datasets
import lm_eval
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from deadweight.errors import InputError
from deadweight.lm_eval import DeadweightLM
from deadweight.prompting import load_task

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the harness has its own, in every run
SHOTS = 3
COMMON = {
    "dataset_path": "json",
    "test_split": "test",
    "fewshot_split": "train",
    "metadata": {"version": 1},
}
KINDS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "Review: {{text}}\nSentiment:",
        "doc_to_choice": ["positive", "negative"],
        "doc_to_target": "label",
        "num_fewshot": SHOTS,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text * 4}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "Review: {{text}}\nSentiment:",
        "doc_to_target": "label",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of YAML tasks over local rows, as the harness wants them."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"text": item.fields["text"], "label": item.label} for item in load_task("embedded:sentiment").items]
    for part, chosen in (("train", rows[:20]), ("test", rows[20:32])):
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, chosen)))
    files = {part: str(folder / f"{part}.jsonl") for part in ("train", "test")}
    for name, options in KINDS.items():
        task = {"task": f"dw_{name}", **COMMON, "dataset_kwargs": {"data_files": files}, **options}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "cache")


def evaluated(model, arguments, tasks, kind, **options):
    return lm_eval.simple_evaluate(
        model=model, model_args={"dtype": "float32", "device": "cpu", **arguments}, tasks=[f"dw_{kind}"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False), log_samples=True,
        bootstrap_iters=0, **options,
    )  # fmt: skip


def answers(found, kind):
    return [sample["filtered_resps"] for sample in found["samples"][f"dw_{kind}"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [2048, 200], ids=["short enough", "truncated"])
def test_the_harness_gets_its_own_numbers(language_folder, tasks, kind, longest):
    theirs = evaluated("hf", {"pretrained": str(language_folder), "max_length": longest}, tasks, kind)
    ours = evaluated("deadweight", {"pretrained": f"hf:{language_folder}", "max_length": longest}, tasks, kind)
    assert len(answers(theirs, kind)) == 12
    for one, other in zip(answers(ours, kind), answers(theirs, kind), strict=True):
        if kind == "choice":
            assert [score for score, _ in one] == pytest.approx([score for score, _ in other], abs=1e-3)
            assert [greedy for _, greedy in one] == [greedy for _, greedy in other]
        elif kind == "rolling":
            assert one == pytest.approx(other, abs=1e-2)  # sums over some 400 tokens
        else:
            assert one == other
    drop = ("alias", "name")
    numbers = {key: value for key, value in theirs["results"][f"dw_{kind}"].items() if key not in drop}
    own = {key: value for key, value in ours["results"][f"dw_{kind}"].items() if key not in drop}
    assert own == {key: value if isinstance(value, str) else pytest.approx(value) for key, value in numbers.items()}


def test_shared_demonstrations_are_computed_once(language_folder, tasks):
    lm = DeadweightLM(f"hf:{language_folder}", device="cpu")
    seen = []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel()))
    shown = "the soup was warm and fresh. " * 20
    requests = [Instance("loglikelihood", {}, (f"{shown}{n}", f" {word}"), n) for n in range(10) for word in "ab"]
    lm.loglikelihood(requests, disable_tqdm=True)
    assert sum(seen) < len(shown) + 10 * 8 + 40  # a token a byte, and the trial run of a new model


def test_whether_an_answer_is_greedy_is_told(language_folder):
    lm = DeadweightLM(f"hf:{language_folder}", device="cpu")
    context, answer = lm.tok_encode("the soup"), []
    for _ in range(3):
        answer.append(int(lm.model(torch.tensor([context + answer])).logits[0, -1].argmax()))
    other = [*answer[:-1], (answer[-1] + 1) % 256]
    found = lm._loglikelihood_tokens([(None, context, answer), (None, context, other)])
    assert [best for _, best in found] == [True, False]


@pytest.mark.parametrize(("context", "answer"), [([], [1]), ([1], []), ([1], [1] * 3000)])
def test_requests_that_cannot_be_scored(language_folder, context, answer):
    lm = DeadweightLM(f"hf:{language_folder}", device="cpu")
    with pytest.raises(InputError, match="tokens to score"):
        lm._loglikelihood_tokens([(None, context, answer)])


def test_the_command_line_is_the_harnesss(language_folder, tasks, tmp_path):
    command = [
        sys.executable, "-m", "deadweight.lm_eval", "--model", "deadweight", "--model_args",
        f"pretrained=hf:{language_folder},dtype=float32", "--device", "cpu", "--tasks", "dw_choice", "--include_path",
        str(tasks), "--output_path", str(tmp_path / "out"), "--limit", "4",
    ]  # fmt: skip
    told = subprocess.run(
        command, check=True, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert "dw_choice" in told.stdout
    (written,) = (tmp_path / "out").rglob("results_*.json")
    expected = evaluated("hf", {"pretrained": str(language_folder)}, tasks, "choice", limit=4)
    found = json.loads(written.read_text())["results"]["dw_choice"]["acc,none"]
    assert found == expected["results"]["dw_choice"]["acc,none"]
