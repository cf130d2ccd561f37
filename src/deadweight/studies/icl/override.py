"""Whether inverted demonstrations override what label words mean: against the control, and against chance (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from deadweight.lab import Records
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.report import Table
from deadweight.statistics import Estimate, cohen_kappa, two_way_mean
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.page import ends, with_interval
from deadweight.studies.frame.quantity import SHARE, Quantity
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.icl.answers import rate_estimate
from deadweight.studies.icl.runs import AskedTask, Frame, asked_tasks, called, excess, followed, overridden

KAPPA = Quantity("coherence", "κ")
FOLLOWED, SHAKEN, SHUNNED, UNSHOWN = (
    "the model does take up the inverted meaning",
    "the model trusts its own meaning less, but follows the inverted one no more often than chance would",
    "the model shies away from the inverted meaning",
    "which chance alone may explain",
)


class Override(Derived):
    """Override rate, excess over the control, and coherence with φ(y*), at the largest number of demonstrations."""

    kind: ClassVar[str] = "override"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [effect for task in asked_tasks(records) for effect in _effects(task)]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        effects = {(pair.effect.subject, pair.effect.id): pair.effect for pair in settled}
        rows = [
            row for name, task in called(asked_tasks(records)).items() if (row := _row(name, task, effects)) is not None
        ]
        caption = (
            "Of the answers that were right without demonstrations, those that inverted demonstrations move to the "
            "inverted label φ(y*), and those that randomly labelled ones move there. φ(y*) given counts all answers; "
            "the excess is that share less the same under random labels, item by item. κ is the agreement with φ(y*) "
            "beyond what the frequencies of labels and answers give by themselves: a model that always answers one "
            "label has 0. Intervals are over items and sets of demonstrations."
        )
        return [Table("Do inverted labels override meanings?", pd.DataFrame(rows).round(3), caption)] if rows else []


def _frames(task: AskedTask) -> tuple[int, Frame, Frame]:
    k = task.largest("inverted")
    return k, ("inverted", k), ("random", k)


def _effects(task: AskedTask) -> list[Effect]:
    k, inverted, control = _frames(task)
    if not k:
        return []
    effects: list[Effect] = []
    moved = rate_estimate(task, overridden(inverted)) if (ZERO_SHOT, 0) in task.frames else None
    controlled = control in task.frames
    if moved is not None:
        effects.append(_effect(task, "override", SHARE, moved, _override_claim(task, k, moved, controlled)))
    agreed = _kappa(task, inverted)
    if agreed is not None:
        statement = f"In {task.name}, Cohen's κ of the answers with φ(y*) is {agreed.value:.2f}."
        effects.append(_effect(task, "kappa", KAPPA, agreed, statement, shown=False))
    if controlled:
        values = task.matrix(excess(inverted, control))
        if not np.isnan(values).all():
            beyond = two_way_mean(values)
            effects.append(_effect(task, "excess-override", SHARE, beyond, _excess_claim(task, k, beyond, agreed)))
    return effects


def _effect(
    task: AskedTask, name: str, quantity: Quantity, estimate: Estimate, statement: str, *, shown: bool = True
) -> Effect:
    return Effect(
        f"{task.slug}-{name}", task.model, "", quantity, estimate, evidence=task.evidence, statement=statement,
        shown=shown,
    )  # fmt: skip


def _kappa(task: AskedTask, frame: Frame) -> Estimate | None:
    answers = np.stack([run.answers[frame] for run in task.runs], axis=1)
    if not (answers >= 0).any():
        return None
    return cohen_kappa(answers, task.runs[0].phi[task.runs[0].gold])


def reading(beyond: Estimate, agreed: Estimate | None) -> str:
    """What the excess over the control means.

    With two labels every wrong answer follows φ, so that demonstrations that only unsettle the model raise the excess
    too: it counts as override only where answers agree with φ(y*) beyond what label frequencies give (κ above 0).
    """
    if beyond.covers and beyond.high is not None and beyond.high < 0:
        return SHUNNED
    if not beyond.covers or beyond.low is None or beyond.low <= 0:
        return UNSHOWN
    follows = agreed is not None and agreed.covers and agreed.low is not None and agreed.low > 0
    return FOLLOWED if follows else SHAKEN


def _override_claim(task: AskedTask, k: int, moved: Estimate, controlled: bool) -> str:
    claim = (
        f"In {task.name}, {k} demonstrations with inverted labels move {moved.value:.0%} of the answers that were "
        "right without demonstrations to the inverted label"
    )
    control = rate_estimate(task, overridden(("random", k))) if controlled else None
    return f"{claim}; random labels move {control.value:.0%} there." if control else f"{claim}."


def _excess_claim(task: AskedTask, k: int, beyond: Estimate, agreed: Estimate | None) -> str:
    claim = (
        f"In {task.name}, inverted labels on {k} demonstrations make the model give the inverted answer "
        f"{abs(100 * beyond.value):.1f} points {'more' if beyond.value >= 0 else 'less'} often than random labels do: "
        f"{reading(beyond, agreed)}."
    )
    same = " With two labels this is accuracy(random) − accuracy(inverted)."
    return claim + (same if len(task.labels) == 2 else "")


def _row(name: str, task: AskedTask, effects: dict[tuple[str, str], Effect]) -> dict[str, object] | None:
    k, inverted, control = _frames(task)
    moved, beyond, agreed = (
        effects.get((task.model, f"{task.slug}-{what}")) for what in ("override", "excess-override", "kappa")
    )
    if moved is None or beyond is None:
        return None

    def share(frame: Frame, indicator: object = None) -> float:
        values = task.matrix(followed(frame) if indicator is None else overridden(frame))
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    limits = ends(moved.estimate)
    return {
        "task": name, "k": k, "override rate": limits["value"], "from": limits["low"], "to": limits["high"],
        "under random labels": share(control, overridden), "φ(y*) given": share(inverted),
        "κ with φ(y*)": "–" if agreed is None else with_interval(agreed.estimate, KAPPA),
        "excess": with_interval(beyond.estimate, SHARE),
        "reading": reading(beyond.estimate, None if agreed is None else agreed.estimate),
    }  # fmt: skip


__all__ = ["FOLLOWED", "KAPPA", "SHAKEN", "SHUNNED", "UNSHOWN", "Override", "reading"]
