"""The charts of the answers: accuracy by condition, its course over k, whom the answers follow, prior × answer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from deadweight.prompting.alignment import quadrants
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.report import Figure, charts
from deadweight.studies.icl.runs import AskedTask


def figures_of(tasks: Sequence[AskedTask], table: pd.DataFrame) -> list[Figure]:
    """All that can be drawn; `table` holds the alignments, a row per task, condition and k."""
    k = max(task.largest() for task in tasks)
    return [_accuracy_figure(table, k), *_course_figure(table), *_alignment_figure(table), *_quadrant_figure(tasks, k)]


def mean_by_condition(table: pd.DataFrame, k: int) -> dict[str, float]:
    """Mean accuracy over tasks, of each condition with `k` demonstrations and of none."""
    last = table[(table["k"] == k) | (table["condition"] == ZERO_SHOT)]
    means = last.groupby("condition", sort=False)["truth alignment"].mean().dropna()
    return {str(condition): float(value) for condition, value in means.items()}


def quadrant_table(tasks: Sequence[AskedTask], k: int) -> pd.DataFrame:
    """One row per condition and quadrant of prior × answer: the share of items, over all tasks."""
    counts: dict[str, dict[str, int]] = {}
    for run in (run for task in tasks for run in task.runs):
        for (condition, shown), predicted in run.answers.items():
            if shown == k and run.prior is not None:
                total = counts.setdefault(condition, {})
                for name, count in quadrants(run.prior, predicted, run.gold).items():
                    total[name] = total.get(name, 0) + count
    rows = [
        {"demonstrations": condition, "side": name, "share": count / sum(total.values())}
        for condition, total in counts.items()
        if any(total.values())  # else no reply was a label
        for name, count in total.items()
    ]
    return pd.DataFrame(rows)


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
    caption = (
        f"Share of right answers with {k} demonstrations and without any; bars are 95 % intervals over items and sets "
        "of demonstrations; with two sets, what the two gave."
    )
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


def _alignment_figure(table: pd.DataFrame) -> list[Figure]:
    """The paper's curves: prior and prompt alignment over k, under natural and inverted demonstrations."""
    shown = table[table["condition"].isin(["natural", "inverted"])]
    if shown["k"].nunique() < 2 or shown["prior alignment"].isna().all():
        return []
    means = shown.groupby(["condition", "k"], sort=False)[["prior alignment", "prompt alignment"]].mean().reset_index()
    frame = means.melt(["condition", "k"], var_name="alignment", value_name="share")
    frame["curve"] = frame["alignment"] + ", " + frame["condition"]
    chart = charts.line(
        frame, "k", "share", color="curve", x_title="demonstrations", y_title="share of answers", y_format=".0%"
    )
    caption = (
        "Mean over the tasks: how often an answer is the one without demonstrations (prior alignment), and how often "
        "it is what the demonstrations ask for (prompt alignment)."
    )
    return [Figure("icl-alignment", "Prior or prompt: whom the answers follow", caption, chart)]


def _quadrant_figure(tasks: Sequence[AskedTask], k: int) -> list[Figure]:
    frame = quadrant_table(tasks, k)
    if frame.empty:
        return []
    chart = charts.heatmap(frame, "side", "demonstrations", "share", title="share of items")
    caption = (
        f"Each answer after {k} demonstrations against the one without any: prior beliefs kept, broken and repaired, "
        "as shares of all items."
    )
    return [Figure("icl-quadrants", "What happens to right and wrong priors", caption, chart)]


__all__ = ["figures_of", "mean_by_condition", "quadrant_table"]
