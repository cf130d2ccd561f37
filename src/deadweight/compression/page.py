"""The page of a compression: one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deadweight.compression.chart import front, widths
from deadweight.compression.report import MEANING, Compression, interval_text
from deadweight.meters import described, machine
from deadweight.report import Figure, Section, Table, write_page


def write(path: Path, report: Compression, source: str, inputs: str) -> Path:
    """Write the page of `report` at `path`."""
    before, after = report.before, report.after
    saved = 1 - after.parameters / before.parameters
    said = "; ".join(f"{MEANING[m.name]}: {m.after.value:.4g} ({m.before:.4g} before)" for m in report.measures)
    lead = (
        f"{source} has {saved:.0%} fewer parameters and {1 - after.macs / max(before.macs, 1):.0%} fewer "
        f"multiply-accumulates. On {report.items['held out']} inputs that nothing was fitted to or chosen by: {said}. "
        + " ".join(f"{note[:1].upper()}{note[1:]}." for note in report.notes)
    )
    section = Section(
        "compression",
        "Before and after",
        "What does the smaller model lose?",
        lead,
        tuple(_figures(report)),
        tuple(_tables(report)),
    )
    return write_page(
        path,
        title=f"{source}, compressed",
        subtitle=f"{inputs}; no labels were used",
        findings=[],
        sections=[section],
        facts={
            "Machine": described(machine()),
            "Versions": f"torch {torch.__version__}",
            "Timed": report.timed,
            "Time taken": f"{sum(report.took.values()):.0f} s",
        },
    )


def _figures(report: Compression) -> list[Figure]:
    figures = []
    axis = "macs" if set(report.asked) == {"macs"} else "parameters"
    if len(report.front) > 1:
        caption = (
            "Each dot is a way to allot the budget. Expected: by adding up what every block is expected to lose, "
            "measured one block at a time and before the blocks repair each other. Measured: plans that were built, "
            "refitted on a few inputs and tried."
        )
        figures.append(
            Figure(
                "compression-front",
                "What each size is expected to lose",
                caption,
                front(report.pareto(), report.unit, axis),
            )
        )
    if any(row["half"] is not None for row in report.blocks):
        caption = (
            "With half of one block's MLP units, refitted, and the rest of the model as it was; tried on a few inputs."
        )
        figures.append(
            Figure(
                "compression-blocks",
                "Where the parameters are needed",
                caption,
                widths(report.allocation(), report.unit),
            )
        )
    return figures


def _tables(report: Compression) -> list[Table]:
    from pandas import DataFrame

    rows: list[dict[str, Any]] = [
        {
            "measure": MEANING[m.name],
            "before": m.before,
            "after": m.after.value,
            "95 % interval": interval_text(m.after),
            "change": f"{m.change.value:+.4g} ({interval_text(m.change, '+')})",
        }
        for m in report.measures
    ]
    done = [
        {
            "block": row["block"] + 1,
            "MLP units": row["hidden"],
            "kept": "block dropped" if row["dropped"] else row["kept"],
            "shares its MLP with": "–" if row["shares_with"] is None else f"block {row['shares_with'] + 1}",
        }
        for row in report.blocks
    ]
    return [
        Table("On held-out inputs", DataFrame(rows), "Intervals: 95 %, for other inputs like these."),
        Table("Size and speed", report.sizes, report.timed),
        Table("What was done", DataFrame(done), "Blocks count from 1."),
    ]
