"""What a plan asks for, printed and not done: cells, hours, bytes, on how many machines."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deadweight.secrets import printable

if TYPE_CHECKING:
    from deadweight.studies import Plan

MACHINES = (1, 2, 4, 8, 16, 32, 64)
_LISTED = 40  # cells, at most, that are printed one by one


def dry_run(planned: Plan, as_json: bool, jobs: int) -> int:
    """Print the plan; `jobs` cells at a time on each machine."""
    from deadweight.lab.forecast import forecast
    from deadweight.studies.frame.sizes import by_kind, bytes_of

    expected = forecast(planned.cells, MACHINES, jobs)
    size = bytes_of(planned.cells)
    if as_json:
        rows = [{"key": cell.key, "cell": cell.identity, "seconds": cell.seconds} for cell in planned.cells]
        kinds = [
            dict(zip(("study", "kind", "cells", "seconds", "bytes"), row, strict=True))
            for row in by_kind(planned.cells)
        ]
        told = {
            "cells": rows, "kinds": kinds, "seconds": expected.seconds, "longest": expected.longest,
            "machines": {str(number): span for number, span in expected.spans.items()}, "bytes": size,
            "skipped": planned.skipped,
        }  # fmt: skip
        print(json_text.dumps(told, ensure_ascii=False))
        return 0
    from deadweight.lab.status import format_duration as time
    from deadweight.studies.frame.sizes import format_bytes

    if len(planned.cells) <= _LISTED:
        for cell in planned.cells:
            print(f"{cell.key}  {cell.label:<60} ~{cell.seconds:.0f} s")
    console, table = Console(), Table(box=None, pad_edge=False)
    table.add_column("study")
    table.add_column("cells of kind")
    for name in ("number", "work", "on disk"):
        table.add_column(name, justify="right")
    for study, kind, number, seconds, held in by_kind(planned.cells):
        table.add_row(Text(printable(study)), Text(printable(kind)), str(number), time(seconds), format_bytes(held))
    console.print(table)
    minutes = f"{expected.seconds / 60:.1f} minutes"
    hours = f" ({time(expected.seconds)})" if expected.seconds > 5400 else ""
    print(f"{len(planned.cells)} cells, about {minutes}{hours} and {format_bytes(size)} on disk")
    spans, fastest = [], float("inf")
    for machines, span in expected.spans.items():
        if span < 0.95 * fastest:  # more machines that hardly help are not told of
            fastest = span
            spans.append(f"{machines}: {time(span)}")
    if len(spans) > 1:
        each = f", {jobs} cells at a time on each" if jobs > 1 else ""
        print(f"machines{each} → done after  {'  '.join(spans)}  (never before {time(expected.longest)})")
    for name, reason in planned.skipped:
        print(f"skipped: {printable(name)}: {printable(reason)}")
    return 0
