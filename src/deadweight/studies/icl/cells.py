"""One cell of the icl study: a task asked in all its frames, with one set of demonstrations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deadweight.errors import InputError
from deadweight.lab import Cell, Json
from deadweight.models import LanguageModel
from deadweight.prompting import Answers, Setting, Task, classify, frame_prompts, frames, split_items
from deadweight.prompting.alignment import INVALID, permutation
from deadweight.prompting.classify import LIKELIHOODS
from deadweight.prompting.generate import Generator, parse_label
from deadweight.studies.icl.checks import demonstration_seed

STUDY = "icl"
VERSION = 2
DECODINGS = (*LIKELIHOODS, "greedy")
# Tokens a greedy answer may have: label words are short, and what follows them is not read.
MAX_TOKENS = 8
# Tokens a second of a 135M model in fp32 on two cores; only the estimate of --dry-run depends on it.
USUAL_SPEED = 450


def cell_of(task: Task, params: Mapping[str, Json], fingerprints: Mapping[str, str]) -> Cell:
    """The cell of one task with one set of demonstrations; `params` as :func:`ask` reads them."""
    wanted = frames(params["conditions"], params["k"])
    items = split_items(task, params["study_seed"], params["limit"]).test
    letters = sum(len(task.ask(item)) for item in items)
    shown = letters / max(1, len(items)) * sum(k for _, k in wanted)
    repeated = len(items) if params["demonstrations"] == "per-item" or params["decoding"] == "greedy" else 1
    seconds = math.ceil((letters * len(wanted) + shown * repeated) / 4 / USUAL_SPEED)
    return Cell(STUDY, "answers", dict(params), (), fingerprints, VERSION, seconds=seconds)


def ask(lm: LanguageModel, task: Task, params: Any) -> dict[str, Json]:
    """The result of one cell by likelihood: the truth, and every frame's log-probabilities and answers."""
    split = split_items(task, params["study_seed"], params["limit"])
    seed = demonstration_seed(params["study_seed"], params["seed"])
    answers = classify(
        lm, task, split, conditions=params["conditions"], k=params["k"], seed=seed,
        decoding=params["decoding"], setting=_setting(params),
    )  # fmt: skip
    return _result(task, split.test, [_frame(one) for one in answers])


def write(generator: Generator, task: Task, params: Any, lm: LanguageModel | None = None) -> dict[str, Json]:
    """The result of one cell by greedy generation; a reply that begins with no label word counts as invalid."""
    split = split_items(task, params["study_seed"], params["limit"])
    seed = demonstration_seed(params["study_seed"], params["seed"])
    wanted = [
        frame_prompts(task, split, condition, k, seed, _setting(params), lm)
        for condition, k in frames(params["conditions"], params["k"])
    ]
    prompts = [prompt for frame in wanted for prompt in frame.prompts]
    replies = iter(generator.generate(prompts, MAX_TOKENS))
    found: list[dict[str, Json]] = []
    for frame in wanted:
        texts = [next(replies) for _ in frame.prompts]
        predicted = [parse_label(text, frame.words) for text in texts]
        found.append({"condition": frame.condition, "k": frame.k, "predicted": predicted, "texts": texts,
                      "invalid": predicted.count(INVALID), "dropped": list(frame.dropped)})  # fmt: skip
    return _result(task, split.test, found)


def _setting(params: Any) -> Setting:
    return Setting(params["demonstrations"] == "per-item", params["too_long"])


def _result(task: Task, items: Sequence[Any], found: Sequence[dict[str, Json]]) -> dict[str, Json]:
    gold = [task.labels.index(item.label) for item in items]
    return {
        "task": task.name,
        "labels": list(task.labels),
        "phi": permutation(task.phi, task.labels).tolist(),
        "items": [item.id for item in items],
        "gold": gold,
        "frames": list(found),
        **{_accuracy_name(one): _accuracy(one["predicted"], gold) for one in found},
    }


def _frame(answers: Answers) -> dict[str, Json]:
    told: dict[str, Json] = {
        "condition": answers.condition,
        "k": answers.k,
        "log_probs": answers.log_probs.tolist(),
        "predicted": answers.predicted.tolist(),
        "margin": answers.margin.tolist(),
        "by_decoding": {name: answers.decided(name).tolist() for name in LIKELIHOODS},
        "dropped": list(answers.dropped),
    }
    if answers.content_free is not None:
        told["content_free"] = answers.content_free.tolist()
    return told


def _accuracy(predicted: Sequence[int], gold: Sequence[int]) -> float | None:
    """Over the items with a valid answer; None where there are none."""
    pairs = [(one, truth) for one, truth in zip(predicted, gold, strict=True) if one != INVALID]
    return sum(one == truth for one, truth in pairs) / len(pairs) if pairs else None


def _accuracy_name(frame: Mapping[str, Json]) -> str:
    return f"accuracy {frame['condition']}" + (f" k={frame['k']}" if frame["k"] else "")


def check_decoding(decoding: str) -> None:
    if decoding not in DECODINGS:
        raise InputError(f"decoding {decoding!r}", expected=f"one of {', '.join(DECODINGS)}")
