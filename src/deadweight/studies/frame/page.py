"""What all studies draw alike: intervals, tables of effects, and the page around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deadweight.lab import Records
from deadweight.meters import described
from deadweight.report import Action, Figure, Table, charts, write_page
from deadweight.report.wording import in_unit
from deadweight.report.wording import interval as interval_text
from deadweight.report.wording import quantity as quantity_text
from deadweight.statistics import Estimate
from deadweight.studies.frame.effects import Effect, slug
from deadweight.studies.frame.quantity import Quantity


def interval_plots(
    id: str,
    effects: Sequence[Effect],
    margin: float | None = None,
    *,
    title: str = "",
    caption: str = "",
    names: Mapping[str, str] | None = None,
) -> list[Figure]:
    """One plot of estimates with their intervals for each quantity among `effects`; the margin dashed.

    names: what each effect is called in the plot, by its id; default: the part that was removed.
    """
    quantities = list(dict.fromkeys(effect.quantity for effect in effects))
    return [
        _interval_plot(
            id if len(quantities) == 1 else f"{id}-{slug(quantity.name)}",
            [effect for effect in effects if effect.quantity == quantity], quantity, margin, title, caption,
            names or {},
        )
        for quantity in quantities
    ]  # fmt: skip


def _interval_plot(
    id: str, effects: Sequence[Effect], quantity: Quantity, margin: float | None, title: str, caption: str,
    names: Mapping[str, str],
) -> Figure:  # fmt: skip
    frame = pd.DataFrame(
        {"part": names.get(effect.id, effect.removed or effect.id), **_in_unit(effect.estimate, quantity)}
        for effect in effects
    )
    word = in_unit(0.0, quantity.unit)[1]
    axis = f"loss, {word}" if quantity.removal else word
    chart = charts.dots_with_intervals(
        frame, "part", "estimate", low="low", high="high", title=axis,
        reference=None if margin is None or not quantity.removal else in_unit(margin, quantity.unit)[0],
    )  # fmt: skip
    dashed = " The dashed line is the loss one accepts." if margin is not None and quantity.removal else ""
    return Figure(
        id, title or f"{quantity.name[:1].upper()}{quantity.name[1:]}", f"{caption or labels(effects)}{dashed}", chart
    )


def _in_unit(estimate: Estimate, quantity: Quantity) -> dict[str, float | None]:
    ends = {"estimate": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if end is None else in_unit(end, quantity.unit)[0] for name, end in ends.items()}


def labels(effects: Sequence[Effect]) -> str:
    """What the lines through the dots are: intervals, or ranges of a few repetitions.

    >>> from deadweight.studies.frame.quantity import ACCURACY
    >>> labels([Effect("a", "", "Cutting it", ACCURACY, Estimate(0.0, -0.1, 0.1, 24, 1.0))])
    'Dots: estimates; lines: 95 % interval.'
    """
    shown = dict.fromkeys(effect.estimate.label for effect in effects if effect.estimate.low is not None)
    return f"Dots: estimates; lines: {', '.join(shown)}." if shown else "Dots: estimates; no interval can be given."


def with_interval(estimate: Estimate, quantity: Quantity) -> str:
    """An estimate and its interval as a table's cell: ``0.3 points (−0.1 to 0.9)``.

    What is no interval says what it is: ``1.2 (range of 3 rounds: 1.1 to 1.4)``.
    """
    text = quantity_text(estimate.value, quantity.unit)
    if estimate.low is None or estimate.high is None:
        return f"{text} ({estimate.label})" if estimate.label and not estimate.covers else text
    ends = interval_text(estimate.low, estimate.high, quantity.unit)
    return f"{text} ({ends})" if estimate.covers else f"{text} ({estimate.label}: {ends})"


def ends(estimate: Estimate) -> dict[str, float | None]:
    """``value``, ``low``, ``high`` of an estimate, for a row of a chart's frame."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def effect_table(title: str, effects: Sequence[Effect], caption: str = "") -> Table:
    """Effects as rows: what was done, what it does, how much of what was looked at."""
    rows = [
        {"part": effect.removed or effect.id, effect.quantity.name: with_interval(effect.estimate, effect.quantity),
         "n": effect.estimate.n}
        for effect in effects
    ]  # fmt: skip
    return Table(title, pd.DataFrame(rows), caption)


def facts(records: Records) -> dict[str, str]:
    """Machine and versions, from the records' own context: what computed the numbers, not what draws the page."""
    if not len(records):
        return {}
    context: Any = records[0].context
    versions = ", ".join(f"{name} {version}" for name, version in context.get("versions", {}).items() if version)
    rows = {
        "Machine": described(context["machine"]),
        "Threads": context.get("threads"),
        "Python": context.get("python"),
        "Versions": versions,
        "Commit": context.get("commit"),
        "Time in cells": f"{sum(float(record.measured.get('seconds', 0)) for record in records):.0f} s",
    }
    return {name: str(value) for name, value in rows.items() if value is not None}


def write_report(path: Path, study: Any, records: Records, skipped: Sequence[tuple[str, str]]) -> Path:
    """Draw the page of `records` at `path`."""
    from deadweight.studies.frame.advice import actions

    findings = [finding.as_json() for finding in records.findings()]
    advised: dict[str, Action] = actions(path.parent, findings)
    return write_page(
        path,
        title=study.title,
        subtitle=study.subtitle,
        findings=findings,
        sections=study.sections(records),
        facts=facts(records),
        actions=advised,
        skipped=list(skipped),
        failed=[
            {"cell": failure.cell.label, "error": failure.error, "attempts": failure.attempts}
            for failure in records.failed
        ],
    )


__all__ = ["effect_table", "ends", "facts", "interval_plots", "labels", "with_interval", "write_report"]
