"""From the records of the icl study to its section of the page: the paper's tables and figures, and ours."""

from __future__ import annotations

import pandas as pd

from deadweight.lab import Records
from deadweight.prompting.alignment import JOINT_RATE_REMARK
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.report import Figure, Section, Table, charts
from deadweight.studies.icl_cells import STUDY
from deadweight.studies.icl_findings import largest
from deadweight.studies.icl_override import override_table
from deadweight.studies.icl_rates import Sitting, alignment_table, by_task, quadrant_table
from deadweight.studies.icl_tables import arithmetic_table, decoding_table, decomposition_table, sweep_table

TWO_LABELS = (
    "With two labels some of these say the same thing twice: what is not right follows φ, so prompt alignment under "
    "inverted demonstrations is 1 − accuracy and excess override is accuracy(random) − accuracy(inverted)."
)


def icl_sections(records: Records) -> list[Section]:
    """The study's section: accuracy by condition, its course over k, prior × answer, the paper's table."""
    tasks = by_task(records)
    if not tasks:
        return []
    table = alignment_table(tasks)
    k = max(largest(sittings) for sittings in tasks.values())
    figures = [
        _accuracy_figure(table, k),
        *_course_figure(table),
        *_alignment_figure(table),
        *_quadrant_figure(tasks, k),
    ]
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
            tables=(Table("Alignments", shown.round(3), " ".join(remarks)), *_more_tables(tasks, records)),
        )
    ]


def _more_tables(tasks: dict[str, list[Sitting]], records: Records) -> list[Table]:
    """Those that have rows: a greedy run has no likelihoods to decode, a single dtype nothing to compare."""
    told = [
        ("Do inverted labels override meanings?", override_table(tasks),
         "Of the answers that were right without demonstrations, those that inverted demonstrations move to the "
         "inverted label φ(y*), with 95 % intervals (Wilson), and those that randomly labelled ones move there. "
         "φ(y*) given counts all answers; the excess is that share less the same under random labels, item by item."),
        ("Where right answers come from", decomposition_table(tasks),
         "Shares of items. Kept: right before and after the demonstrations; repaired: right only after them; broken: "
         "right only without. Accuracy is kept + repaired, the gain is repaired − broken."),
        ("Where demonstrations stop to matter", sweep_table(tasks),
         "The most that any larger number of naturally labelled demonstrations gains over k, in accuracy, with its "
         "95 % interval. Past k they are dead weight when no larger number gains a point with its whole interval."),
        ("The same log-probabilities, decoded three ways", decoding_table(records),
         "Accuracy by the sum over a label's tokens, by their mean, and calibrated by a question without content; mean "
         "over tasks and sets of demonstrations."),
        ("What the arithmetic alone changes", arithmetic_table(records),
         "The same questions in two dtypes; shifts and leads in nats, changed answers as a share of all."),
    ]  # fmt: skip
    return [Table(title, frame.round(3), caption) for title, frame, caption in told if len(frame)]


def _lead(table: pd.DataFrame, k: int, tasks: int) -> str:
    last = table[(table["k"] == k) | (table["condition"] == ZERO_SHOT)]
    means = last.groupby("condition", sort=False)["truth alignment"].mean().dropna()
    told = ", ".join(f"{100 * value:.0f} % {_named(str(condition), k)}" for condition, value in means.items())
    summary = f"On average over the tasks the model is right on {told}." if told else "No reply was one of the labels."
    return (
        f"The same test items of {tasks} task{'s' if tasks > 1 else ''} are asked without demonstrations and after "
        "demonstrations with their own, inverted and random labels. If right labels teach the model something, random "
        f"ones must cost accuracy. {summary}"
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
