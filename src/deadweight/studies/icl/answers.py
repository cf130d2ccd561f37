"""The answers: a task asked without demonstrations and after natural, inverted and random ones (the paper's grid)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd

from deadweight.errors import InputError
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import check_language
from deadweight.prompting import Setting, Task, load_task
from deadweight.prompting.alignment import INVALID, JOINT_RATE_REMARK, agreement, coherence, joint, quadrants
from deadweight.prompting.classify import LIKELIHOODS
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.prompting.generate import LocalGenerator
from deadweight.prompting.server import ServerGenerator, check_server, is_server, parse_server
from deadweight.report import Figure, Table
from deadweight.statistics import Estimate, two_way_mean, two_way_rate
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import language_digest
from deadweight.studies.frame.quantity import ACCURACY, SHARE
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.icl.answers_figures import figures_of, mean_by_condition
from deadweight.studies.icl.cells import MAX_TOKENS, STUDY, ask, cell_of, write
from deadweight.studies.icl.checks import check_prompts, check_task, known_to_fit
from deadweight.studies.icl.runs import (
    AskedTask,
    Frame,
    Indicator,
    asked_tasks,
    called,
    correct,
    loss,
    overridden,
    within_noise,
)

ENDS = (
    "Accuracy from, to: a 95 % interval over items and sets of demonstrations; of two sets their range; of one set an "
    "interval over items, for this set alone."
)
TWO_LABELS = (
    "With two labels some of these say the same thing twice: what is not right follows φ, so prompt alignment under "
    "inverted demonstrations is 1 − accuracy and excess override is accuracy(random) − accuracy(inverted)."
)
FEWER = (1, 2, 4)  # numbers of demonstrations that advice says to try
_LEAVE = "Leave the demonstrations out of this prompt, or see whether fewer of them help."
_LABELS = "Do not spend effort on the demonstrations' labels here; try fewer demonstrations."


class AnswersResult(TypedDict, total=False):
    """The result: labels, φ and truth by class number, and a frame for each condition and k: ``predicted`` classes
    (−1 for no label), and ``log_probs``, ``margin`` (nats), ``by_decoding`` where likelihoods decided."""

    task: str
    labels: list[str]
    phi: list[int]
    items: list[str]
    gold: list[int]
    frames: list[Json]


class Answers(Experiment):
    """One cell is one task with one set of demonstrations: the scorer computes what its frames share once."""

    kind: ClassVar[str] = "answers"
    bytes_per_cell: ClassVar[int] = 21_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        names = {source: _fingerprint(source, study.decoding) for source in study.language}
        tasks = [load_task(source) for source in study.tasks]
        _each_once(study, tasks)
        alone = study.demonstrations == "per-item"
        for task in tasks:
            check_task(task, study.k, study.conditions, study.seeds, study.seed, study.limit, alone)
        for language in study.language:
            if not is_server(language) and not known_to_fit(language, study.tasks):
                check_prompts(
                    language, tasks, study.conditions, study.k, study.seeds, study.seed, study.limit,
                    Setting(alone, study.too_long), MAX_TOKENS if study.decoding == "greedy" else 0,
                )  # fmt: skip
        dtypes = dict.fromkeys([study.dtype, *([study.compare_dtype] if study.compare_dtype else [])])
        return [
            cell_of(task, study.params(language, source, seed, dtype), {"language": name, "task": task.digest})
            for language, name in names.items()
            for dtype in dtypes
            for seed in study.seeds  # before the tasks, so that a budget that ends cuts all of them alike
            for source, task in zip(study.tasks, tasks, strict=True)
        ]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        source, dtype, task = cell.params["language"], cell.params["dtype"], load_task(cell.params["task"])
        if is_server(source):
            bench.note(f"asking {parse_server(source).model}")
            generator = ServerGenerator(parse_server(source), bench.folder / "replies.jsonl")
            return Outcome(write(generator, task, cell.params))
        bench.note(f"loading {source}")
        lm = study.loaded(source, dtype, bench.device)
        bench.note(f"asking {lm.name.rsplit('/', 1)[-1]}")
        if cell.params["decoding"] == "greedy":
            return Outcome(write(LocalGenerator(lm), task, cell.params, lm))
        return Outcome(ask(lm, task, cell.params))

    def effects(self, records: Records, margin: float) -> list[Effect]:
        tasks = asked_tasks(records)
        judged = [effect for task in tasks for effect in _losses(task, margin)]
        return [*judged, *(effect for task in tasks for effect in _accuracies(task))]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        tasks = asked_tasks(records)
        if not tasks:
            return []
        k = max(task.largest() for task in tasks)
        means = mean_by_condition(_alignments(tasks, _accuracy_effects(settled)), k)
        shares = ", ".join(f"{100 * value:.0f} % {_named(condition, k)}" for condition, value in means.items())
        summary = (
            f"On average over the tasks the model is right on {shares}."
            if shares
            else "No reply was one of the labels."
        )
        return [
            f"The same test items of {len(tasks)} task{'s' if len(tasks) > 1 else ''} are asked without demonstrations "
            "and after demonstrations with their own, inverted and random labels. If right labels teach the model "
            f"something, random ones must cost accuracy. {summary}"
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        tasks = asked_tasks(records)
        return figures_of(tasks, _alignments(tasks, _accuracy_effects(settled))) if tasks else []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        tasks = asked_tasks(records)
        if not tasks:
            return []
        remarks = [JOINT_RATE_REMARK[0].upper() + JOINT_RATE_REMARK[1:] + "."]
        remarks += [ENDS]
        remarks += [TWO_LABELS] if any(len(task.labels) == 2 for task in tasks) else []
        table = _alignments(tasks, _accuracy_effects(settled))
        shown = table.rename(columns={"low": "accuracy from", "high": "accuracy to"})
        more = [
            ("Where right answers come from", decomposition_table(tasks),
             "Shares of items. Kept: right before and after the demonstrations; repaired: right only after them; "
             "broken: right only without. Accuracy is kept + repaired, the gain is repaired − broken."),
            ("The same log-probabilities, decoded three ways", decoding_table(records),
             "Accuracy by the sum over a label's tokens, by their mean, and calibrated by a question without content; "
             "mean over tasks and sets of demonstrations."),
        ]  # fmt: skip
        tables = [Table(title, frame.round(3), caption) for title, frame, caption in more if len(frame)]
        return [Table("Alignments", shown.round(3), " ".join(remarks)), *tables]


def _fingerprint(source: str, decoding: str) -> str:
    if is_server(source):
        check_server(source, decoding)
        return source
    return language_digest(check_language(source))


def _each_once(study: Any, tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    for what, given in (("task", names), ("model", study.language), ("seed", study.seeds), ("k", study.k)):
        if len(set(given)) < len(given):
            raise InputError(f"{what}: {list(given)}", expected=f"each {what} once")


def loss_effect(
    task: AskedTask, name: str, removed: str, before: Frame, after: Frame, margin: float, sentence: str,
    *, shown: bool = True,
) -> Effect | None:  # fmt: skip
    """What going from one frame to another costs, over items and sets of demonstrations; None where nothing is valid
    on both sides."""
    values = task.matrix(loss(before, after))
    if np.isnan(values).all():
        return None
    right = task.matrix(correct(before))
    arguments = {"language": task.model, "tasks": task.source, "k": list(FEWER)}
    return Effect(
        f"{task.slug}-{name}", task.model, f"In {task.name}, {removed}", ACCURACY, two_way_mean(values, margin),
        float(np.nanmean(np.where(np.isnan(values), np.nan, right))), judged=True,
        remedy=Remedy("", "icl", arguments, sentence), evidence=task.evidence, shown=shown,
    )  # fmt: skip


def _losses(task: AskedTask, margin: float) -> list[Effect]:
    """What removing the demonstrations costs, and what giving them random labels costs, at the largest number."""
    k = task.largest()
    natural, random, prior = ("natural", k), ("random", k), (ZERO_SHOT, 0)
    effects: list[Effect | None] = []
    if natural in task.frames and prior in task.frames:
        removed = f"leaving out all {k} demonstrations"
        effects.append(loss_effect(task, "demonstrations", removed, natural, prior, margin, _LEAVE))
    if natural in task.frames and random in task.frames:
        removed = f"giving the {k} demonstrations random labels instead of the right ones"
        effects.append(loss_effect(task, "labels", removed, natural, random, margin, _LABELS))
    return [effect for effect in effects if effect is not None]


def rate_estimate(task: AskedTask, indicator: Indicator) -> Estimate | None:
    """A share over items and sets of demonstrations; None where no item counts."""
    values = task.matrix(indicator)
    return None if np.isnan(values).all() else two_way_rate(values)


def _accuracies(task: AskedTask) -> list[Effect]:
    return [
        Effect(
            _accuracy_id(task, frame), task.model, "", SHARE, estimate, evidence=task.evidence, shown=False,
            statement=f"In {task.name}, {estimate.value:.0%} of the answers are right.",
        )
        for frame in task.frames
        if (estimate := rate_estimate(task, correct(frame))) is not None
    ]  # fmt: skip


def _accuracy_id(task: AskedTask, frame: Frame) -> str:
    return f"{task.slug}-accuracy-{frame[0]}-{frame[1]}"


def _accuracy_effects(settled: Sequence[Settled]) -> dict[tuple[str, str], Estimate]:
    return {(pair.effect.subject, pair.effect.id): pair.effect.estimate for pair in settled}


def _alignments(tasks: Sequence[AskedTask], estimates: Mapping[tuple[str, str], Estimate]) -> pd.DataFrame:
    """One row per task, condition and k: the paper's alignments, the joint rate, override and coherence."""
    rows = []
    for name, task in called(tasks).items():
        for frame in task.frames:
            accuracy = estimates.get((task.model, _accuracy_id(task, frame)))
            rows.append({"task": name, "condition": frame[0], "k": frame[1], **_rates(task, frame, accuracy)})
    return pd.DataFrame(rows)


def _rates(task: AskedTask, frame: Frame, accuracy: Estimate | None) -> dict[str, float | int | None]:
    condition = frame[0]
    kappas = [coherence(run.answers[frame], run.phi[run.gold], len(run.labels)) for run in task.runs]
    asked = [run.asked_for(condition) for run in task.runs]

    def share(values: Sequence[np.ndarray]) -> float:
        flat = np.concatenate(values) if values else np.array([np.nan])
        return float(np.nanmean(flat)) if np.isfinite(flat).any() else float("nan")

    nan = float("nan")
    return {
        "items": len(task.matrix(correct(frame))) if accuracy else 0,
        "truth alignment": accuracy.value if accuracy else nan,
        "low": accuracy.low if accuracy else nan,
        "high": accuracy.high if accuracy else nan,
        "prior alignment": share(
            [agreement(run.answers[frame], run.prior) for run in task.runs if run.prior is not None]
        ),
        "prompt alignment": share(
            [agreement(run.answers[frame], wanted) for run, wanted in zip(task.runs, asked, strict=True)]
        ),
        "joint rate": share([joint(run.answers[frame], run.gold, run.phi) for run in task.runs])
        if condition == "inverted"
        else nan,
        "override rate": share([overridden(frame)(run) for run in task.runs]),
        "κ with φ(y*)": float(np.mean(kappas)),
        "invalid": float(np.mean([np.mean(run.answers[frame] == INVALID) for run in task.runs])),
        "within noise": within_noise(task, frame),
    }


def _named(condition: str, k: int) -> str:
    return "without demonstrations" if condition == ZERO_SHOT else f"after {k} with {condition} labels"


def decomposition_table(tasks: Sequence[AskedTask]) -> pd.DataFrame:
    """Accuracy and its gain over the prior, split by whether the right answer was the prior's own (ours).

    accuracy = kept (prior-consistent) + repaired (prior-breaking); gain = repaired − broken.
    """
    rows = []
    for name, task in called(tasks).items():
        for frame in task.frames:
            parts = [quadrants(r.prior, r.answers[frame], r.gold) for r in task.runs if r.prior is not None]
            counts = {place: sum(part[place] for part in parts) for place in parts[0]} if parts else {}
            total = sum(counts.values())
            if frame[0] == ZERO_SHOT or not total:
                continue
            kept, broken, repaired, _ = (count / total for count in counts.values())
            right = kept + repaired
            rows.append(
                {
                    "task": name, "condition": frame[0], "k": frame[1], "prior accuracy": kept + broken,
                    "accuracy": right, "kept": kept, "repaired": repaired, "broken": broken,
                    "gain": repaired - broken, "right answers that are the prior's": kept / right if right else np.nan,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def decoding_table(records: Records) -> pd.DataFrame:
    """Accuracy by how the label is read off the same log-probabilities: mean over tasks and sets; one row per frame."""
    rows = []
    for record in own_dtype(records):
        gold = np.asarray(record.result["gold"])
        for frame in record.result["frames"]:
            for name in LIKELIHOODS:
                if name in frame.get("by_decoding", {}):
                    right = float(np.mean(np.asarray(frame["by_decoding"][name]) == gold))
                    rows.append({"condition": frame["condition"], "k": frame["k"], "decoding": name, "accuracy": right})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).groupby(["condition", "k", "decoding"], sort=False)["accuracy"].mean().unstack()
    return table[list(LIKELIHOODS)].reset_index().rename_axis(columns=None)


def own_dtype(records: Records) -> list[Record]:
    """The records in the study's own dtype, the first that was asked for."""
    own = [record for record in records if record.cell.study == STUDY]
    return [record for record in own if record.cell.params.get("dtype") == own[0].cell.params.get("dtype")]


__all__ = [
    "Answers",
    "AnswersResult",
    "decoding_table",
    "decomposition_table",
    "loss_effect",
    "own_dtype",
    "rate_estimate",
]
