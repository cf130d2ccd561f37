"""What the arithmetic alone changes: the same questions in two dtypes; and the answers item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from deadweight.lab import Record, Records
from deadweight.prompting import Task
from deadweight.report import Table
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.icl.cells import STUDY
from deadweight.studies.icl.runs import asked_tasks


class Arithmetic(Derived):
    """Described, not estimated: every question was asked in both dtypes."""

    kind: ClassVar[str] = "arithmetic"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        frame = arithmetic_table(records)
        caption = "The same questions in two dtypes; shifts and leads in nats, changed answers as a share of all."
        return [Table("What the arithmetic alone changes", frame.round(3), caption)] if len(frame) else []


def item_table(records: Records, task: Task | None = None) -> pd.DataFrame:
    """One row per item, set of demonstrations and frame, for reading errors one by one.

    Columns: task, item, seed, condition, k, label, prior, answer (labels; None for an invalid reply, or where there is
    no frame without demonstrations), lead (nats; NaN for generated answers), and with `task` also the question.
    """
    questions = {item.id: task.ask(item) for item in task.items} if task else {}
    rows = []
    for run in (run for asked in asked_tasks(records) for run in asked.runs):
        names = [*run.labels, None]  # INVALID is -1
        for (condition, k), answers in run.answers.items():
            for at, item in enumerate(run.items):
                if task is None or item in questions:
                    rows.append({
                        "task": run.task, "item": item, "seed": run.seed, "condition": condition, "k": k,
                        "label": names[run.gold[at]], "answer": names[answers[at]],
                        "prior": None if run.prior is None else names[run.prior[at]],
                        "lead": run.margins[condition, k][at] if (condition, k) in run.margins else np.nan,
                        **({"question": questions[item]} if task else {}),
                    })  # fmt: skip
    return pd.DataFrame(rows)


def arithmetic_table(records: Records) -> pd.DataFrame:
    """The same questions in two dtypes: shifts of the log-probabilities and of the answers; one row per task."""
    own = [record for record in records if record.cell.study == STUDY]
    if len({record.cell.params.get("dtype") for record in own}) < 2:
        return pd.DataFrame()
    pairs: dict[tuple[object, ...], list[Record]] = {}
    for record in own:
        params = record.cell.params
        pairs.setdefault((params["language"], params["task"], params["seed"]), []).append(record)
    rows = []
    for one, other in (pair for pair in pairs.values() if len(pair) == 2):
        for left, right in zip(one.result["frames"], other.result["frames"], strict=True):
            if "log_probs" in left and "log_probs" in right:
                shift = np.abs(np.asarray(left["log_probs"]) - np.asarray(right["log_probs"]))
                moved = np.asarray(left["predicted"]) != np.asarray(right["predicted"])
                rows.append({"task": one.result["task"], "shift": shift.max(), "middle": np.median(shift),
                             "flips": moved.mean(), "overturned": _largest(left["margin"], moved),
                             "leads": left["margin"]})  # fmt: skip
    if not rows:
        return pd.DataFrame()
    grouped = pd.DataFrame(rows).groupby("task", sort=False)
    return pd.DataFrame(
        {
            "largest shift of a log-probability": grouped["shift"].max(),
            "median shift": grouped["middle"].median(),
            "answers that lead by less": grouped[["shift", "leads"]].apply(_within_shift),
            "answers that change": grouped["flips"].mean(),
            "largest lead that was overturned": grouped["overturned"].max(),
        }
    ).reset_index()


def _within_shift(frames: pd.DataFrame) -> float:
    """The share of answers whose lead is smaller than the largest shift of one log-probability."""
    leads = np.concatenate(frames["leads"].to_numpy())
    return float(np.mean(leads < frames["shift"].max()))


def _largest(margins: Sequence[float], moved: np.ndarray) -> float:
    leads = np.asarray(margins)[moved]
    return float(leads.max()) if len(leads) else 0.0


__all__ = ["Arithmetic", "arithmetic_table", "item_table"]
