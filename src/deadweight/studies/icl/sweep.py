"""Where demonstrations stop to matter: what the largest number of them gains over each smaller one (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd

from deadweight.lab import Records
from deadweight.report import Table
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.page import with_interval
from deadweight.studies.frame.quantity import ACCURACY
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.icl.answers import loss_effect
from deadweight.studies.icl.runs import AskedTask, asked_tasks, called

_FEWER = "Give fewer demonstrations: the shorter prompt is as good."
_SAID = {"dead weight": "yes", "needed": "no"}


class Sweep(Derived):
    """Each smaller number of naturally labelled demonstrations against the largest, judged with everything else."""

    kind: ClassVar[str] = "sweep"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        found = []
        for task in asked_tasks(records):
            numbers = _numbers(task)
            for number in numbers[:-1]:
                last = len(numbers) > 2 and number == numbers[-2]
                name = "last-demonstrations" if last else f"demonstrations-{number}"
                removed = f"{number} demonstrations instead of {numbers[-1]}"
                before, after = ("natural", numbers[-1]), ("natural", number)
                effect = loss_effect(task, name, f"giving {removed}", before, after, margin, _FEWER, shown=last)
                found += [] if effect is None else [effect]
        return found

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        pairs = {(pair.effect.subject, pair.effect.id): pair for pair in settled}
        rows = []
        for name, task in called(asked_tasks(records)).items():
            numbers = _numbers(task)
            for number in numbers[:-1]:
                last = len(numbers) > 2 and number == numbers[-2]
                what = "last-demonstrations" if last else f"demonstrations-{number}"
                pair = pairs.get((task.model, f"{task.slug}-{what}"))
                if pair is not None:
                    rows.append({
                        "task": name, "k": number, "gained by the largest k": with_interval(
                            pair.effect.estimate, ACCURACY),
                        "largest k": numbers[-1],
                        "dead past here": _SAID.get(str(pair.finding.verdict), "undecided"),
                    })  # fmt: skip
        caption = (
            "What the largest number of naturally labelled demonstrations gains over k, in accuracy. Past k they are "
            "dead weight when that surely is less than the margin, once corrected for everything this study judges."
        )
        return [Table("Where demonstrations stop to matter", pd.DataFrame(rows), caption)] if rows else []


def _numbers(task: AskedTask) -> list[int]:
    return sorted(k for condition, k in task.frames if condition == "natural")


__all__ = ["Sweep"]
