"""From the records of the icl study to its findings and its section of the page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from deadweight.lab import Estimate, Finding, Records
from deadweight.prompting.alignment import JOINT_RATE_REMARK
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.report import Figure, Section, Table, charts
from deadweight.studies.icl_rates import (
    Sitting,
    alignment_table,
    by_task,
    difference,
    excess,
    loss,
    overridden,
    quadrant_table,
    rate,
)

STUDY = "icl"
TWO_LABELS = (
    "With two labels some of these say the same thing twice: what is not right follows φ, so prompt alignment under "
    "inverted demonstrations is 1 − accuracy and excess override is accuracy(random) − accuracy(inverted)."
)


def icl_findings(records: Records, margin: float, command: str) -> list[Finding]:
    """Of every task: what removing the demonstrations costs, what randomising their labels costs, what inverting does.

    All are told at the largest number of demonstrations. The first two are losses from removal and get verdicts.
    """
    found: list[Finding] = []
    for task, sittings in by_task(records.where(study=STUDY)).items():
        k = _largest(sittings)
        frames = sittings[0].answers
        evidence = [sitting.key for sitting in sittings]
        natural, random, inverted, prior = ("natural", k), ("random", k), ("inverted", k), (ZERO_SHOT, 0)

        def tell(name: str, claim: str, estimate: Estimate, judged: bool, task: str = task,
                 evidence: list[str] = evidence) -> None:  # fmt: skip
            found.append(
                Finding.of(
                    f"icl-{_slug(task)}-{name}", STUDY, claim, estimate, "accuracy" if judged else "share",
                    margin=margin if judged else None, evidence=evidence, command=command,
                )
            )  # fmt: skip

        if natural in frames and prior in frames:
            gone = difference(sittings, loss(natural, prior), margin)
            tell("demonstrations", f"In {task}, leaving out all {k} demonstrations {_change(gone)}.", gone, True)
        if natural in frames and random in frames:
            mixed = difference(sittings, loss(natural, random), margin)
            claim = (
                f"In {task}, giving the {k} demonstrations random labels instead of the right ones {_change(mixed)}."
            )
            tell("labels", claim, mixed, True)
        if inverted in frames and prior in frames and (moved := rate(sittings, overridden(inverted))):
            tell("override", _override_claim(task, k, sittings, moved, random in frames), moved, False)
        if inverted in frames and random in frames:
            beyond = difference(sittings, excess(inverted, random))
            tell("excess-override", _excess_claim(task, k, sittings, beyond), beyond, False)
    return found


def _override_claim(task: str, k: int, sittings: Sequence[Sitting], moved: Estimate, controlled: bool) -> str:
    claim = (
        f"In {task}, {k} demonstrations with inverted labels move {moved.value:.0%} of the answers that were right "
        "without demonstrations to the inverted label"
    )
    control = rate(sittings, overridden(("random", k))) if controlled else None
    return f"{claim}; random labels move {control.value:.0%} there." if control else f"{claim}."


def _excess_claim(task: str, k: int, sittings: Sequence[Sitting], beyond: Estimate) -> str:
    if beyond.low > 0:
        sense = "the model does take up the inverted meaning"
    elif beyond.high < 0:
        sense = "the model shies away from the inverted meaning"
    else:
        sense = "which chance alone may explain"
    claim = (
        f"In {task}, inverted labels on {k} demonstrations make the model give the inverted answer "
        f"{abs(100 * beyond.value):.1f} points {'more' if beyond.value >= 0 else 'less'} often than random labels do: "
        f"{sense}."
    )
    same = " With two labels this is accuracy(random) − accuracy(inverted)."
    return claim + (same if len(sittings[0].labels) == 2 else "")


def _change(estimate: Estimate) -> str:
    points = round(100 * estimate.value, 1)
    if points == 0:
        return "does not change accuracy"
    return f"{'costs' if points > 0 else 'gains'} {abs(points):g} points of accuracy"


def _largest(sittings: Sequence[Sitting]) -> int:
    return max(k for _, k in sittings[0].answers)


def _slug(task: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in task).split()).lower()


def icl_sections(records: Records) -> list[Section]:
    """The study's section: accuracy by condition, its course over k, prior × answer, the paper's table."""
    tasks = by_task(records.where(study=STUDY))
    if not tasks:
        return []
    table = alignment_table(tasks)
    k = max(_largest(sittings) for sittings in tasks.values())
    figures = [_accuracy_figure(table, k), *_course_figure(table), *_quadrant_figure(tasks, k)]
    labels = {len(sittings[0].labels) for sittings in tasks.values()}
    remarks = [JOINT_RATE_REMARK[0].upper() + JOINT_RATE_REMARK[1:] + "."]
    remarks += [TWO_LABELS] if 2 in labels else []
    shown = table.rename(columns={"low": "accuracy from", "high": "accuracy to"})
    return [
        Section(
            id=STUDY,
            title="Demonstrations",
            question="Do demonstrations override what label words mean, or only refine what the model believes anyway?",
            lead=_lead(table, k, len(tasks)),
            figures=tuple(figures),
            tables=(Table("Alignments", shown.round(3), " ".join(remarks)),),
        )
    ]


def _lead(table: pd.DataFrame, k: int, tasks: int) -> str:
    last = table[(table["k"] == k) | (table["condition"] == ZERO_SHOT)]
    means = last.groupby("condition", sort=False)["truth alignment"].mean()
    told = ", ".join(f"{100 * value:.0f} % {_named(str(condition), k)}" for condition, value in means.items())
    return (
        f"The same test items of {tasks} task{'s' if tasks > 1 else ''} are asked without demonstrations and after "
        "demonstrations with their own, inverted and random labels. If right labels teach the model something, random "
        f"ones must cost accuracy. On average over the tasks the model is right on {told}."
    )


def _named(condition: str, k: int) -> str:
    return "without demonstrations" if condition == ZERO_SHOT else f"after {k} with {condition} labels"


def _accuracy_figure(table: pd.DataFrame, k: int) -> Figure:
    frame = table[(table["k"] == k) | (table["condition"] == ZERO_SHOT)]
    chart = charts.dots_with_intervals(
        frame,
        "task",
        "truth alignment",
        low="low",
        high="high",
        color="condition",
        title="accuracy",
        value_format=".0%",
    )
    caption = f"Share of right answers with {k} demonstrations and without any; bars are 95 % intervals (Wilson)."
    return Figure("icl-accuracy", "Accuracy by what the demonstrations say", caption, chart)


def _course_figure(table: pd.DataFrame) -> list[Figure]:
    shown = table[table["condition"] != ZERO_SHOT]
    if shown["k"].nunique() < 2:
        return []
    frame = shown.groupby(["condition", "k"], sort=False)["truth alignment"].mean().reset_index()
    prior = table[table["condition"] == ZERO_SHOT]["truth alignment"]
    chart = charts.line(
        frame, "k", "truth alignment", color="condition", x_title="demonstrations", y_title="accuracy",
        y_format=".0%", reference=float(prior.mean()) if len(prior) else None,
    )  # fmt: skip
    dashed = "; the dashed line is the accuracy without any" if len(prior) else ""
    caption = f"Mean over the tasks. Every set of demonstrations contains the smaller ones{dashed}."
    return [Figure("icl-k", "What more demonstrations bring", caption, chart)]


def _quadrant_figure(tasks: dict[str, list[Sitting]], k: int) -> list[Figure]:
    frame = quadrant_table(tasks, k)
    if frame.empty:
        return []
    chart = charts.heatmap(frame, "side", "demonstrations", "share", title="share of items")
    caption = (
        f"Each answer after {k} demonstrations against the one without any: prior beliefs kept, broken and repaired, "
        "as shares of all items."
    )
    return [Figure("icl-quadrants", "What happens to right and wrong priors", caption, chart)]
