"""The tables and the eight figures of arXiv 2507.07247, in its units, from our records.

Its measures are of whole training runs. Ours of a run are those of one training step, timed and metered alone on the
machine, times the number of steps: training runs themselves share the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from deadweight.studies.attention_records import held_out, runs, timed_model, trained
from deadweight.studies.attention_tables import MISSING, milliseconds, number

from deadweight.lab import Record, Records
from deadweight.report import Figure, Table, charts

HOUR = 3600.0


def paper_rows(records: Records) -> pd.DataFrame | None:
    """A row a mechanism, the paper's measures as columns; ``missing`` where something was not measured."""
    model = timed_model(records)
    if model is None:
        return None
    names = [name for name in trained(records) if name in model.measured["mechanisms"]]
    return pd.DataFrame([_row(records, model, name) for name in names]) if names else None


def _row(records: Records, model: Record, name: str) -> dict[str, Any]:
    found, facts = model.measured["mechanisms"][name], model.result["mechanisms"][name]
    metered = found["metered"] or {}
    steps = int(runs(records, name)[0].cell.params["steps"])
    cores = model.context["machine"]["logical_cores"] or 1
    parts = metered.get("energy_parts", {})
    disk = [metered.get(f"disk_{way}_bytes") for way in ("read", "write")]
    processor, accelerator = (
        _watts({part: r for part, r in parts.items() if _on_board(part) == board}, metered.get("seconds"))
        for board in (False, True)
    )
    return {
        "mechanism": name,
        "training time, h": steps * found["seconds"]["value"] / HOUR,
        "latency, ms": milliseconds(found, "prefill_seconds"),
        "memory, MB": found["peak_bytes"] / 1e6,
        "GFLOPs a step": found["flops_executed"] / 1e9,
        "CPU use, %": 100 * metered["cores_busy"] / cores if metered else MISSING,
        "CPU power, W": processor,
        "GPU use, %": number(metered.get("accelerator_use"), 100),
        "GPU power, W": accelerator,
        "host memory, MB": metered["resident_bytes"] / 1e6 if metered else MISSING,
        "disk I/O, MB": MISSING if None in disk else sum(float(moved or 0) for moved in disk) / 1e6,
        "model size, MB": facts["bytes_on_disk"] / 1e6,
        "loss": held_out(records, name),
        "energy, MJ": number(metered.get("energy"), steps / 1e6),
    }


def _on_board(part: str) -> bool:
    return part.startswith(("gpu", "chip gpu"))


def _watts(parts: Mapping[str, Any], seconds: float | None) -> float | str:
    read = [float(reading["value"]) for reading in parts.values() if reading["value"] is not None]
    return sum(read) / seconds if read and seconds else MISSING


def paper_tables(records: Records) -> list[Table]:
    frame = paper_rows(records)
    if frame is None:
        return []
    caption = (
        "Of a whole training run: the measures of one training step, alone on the machine, times the steps. GFLOPs "
        "are executed ones, two a multiply-accumulate, the backward pass counted as two forward ones. Latency is that "
        "of reading one batch of full sequences. CPU power includes the memory beside it. "
        "Nothing is filled in for what is missing."
    )
    return [Table("The measures of arXiv 2507.07247, in its units", frame, caption)]


# id, title, column, caption
_BARS: tuple[tuple[str, str, str, str], ...] = (
    ("time", "Figure 2: training time", "training time, h", "Hours of a whole training run."),
    ("latency", "Figure 3: latency", "latency, ms", "Milliseconds to read a batch of full sequences."),
    ("memory", "Figure 4: memory", "memory, MB", "Peak of a training step above what was there."),
    ("flops", "Figure 5: operations", "GFLOPs a step", "Executed in a training step."),
    ("cpu", "Figure 6: processor", "CPU use, %", "Share of all cores' time; its power is in the table."),
    ("gpu", "Figure 7: accelerator", "GPU use, %", "Share of the time a kernel ran; its power is in the table."),
    ("energy", "Figure 8: energy", "energy, MJ", "Of a whole training run, from the machine's counters."),
)


def paper_figures(records: Records, loss: Callable[[Records], Figure | None]) -> list[Figure]:
    """The eight, as far as they were measured; `loss` draws the first, loss over training."""
    frame = paper_rows(records)
    first = loss(records)
    figures = [] if first is None else [replace(first, title="Figure 1: loss while training")]
    if frame is None:
        return figures
    for name, title, column, caption in _BARS:
        known = frame[_known(frame[column])]
        if known.empty:
            continue
        rows = pd.DataFrame({"mechanism": known["mechanism"], "value": known[column].astype(float)})
        chart = charts.bars_with_intervals(rows, "mechanism", "value", title=column)
        figures.append(Figure(f"attention-paper-{name}", title, caption, chart))
    return figures


def undrawn(records: Records) -> list[str]:
    """Titles of the figures that nothing was measured for."""
    frame = paper_rows(records)
    if frame is None:
        return []
    return [title for _, title, column, _ in _BARS if not _known(frame[column]).any()]


def _known(column: pd.Series[Any]) -> pd.Series[bool]:
    return column.map(lambda value: isinstance(value, float)).astype(bool)
