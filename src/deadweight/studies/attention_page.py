"""The attention study's part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from deadweight.lab import Record, Records
from deadweight.report import Figure, Section, Table, charts
from deadweight.studies.attention_findings import held_out, runs, trained

TITLE = "Attention: what each mechanism costs"
QUESTION = "Which attention mechanism costs what: time, memory, energy, quality?"
POINTS = 60  # of a loss curve


def sections(records: Records) -> list[Section]:
    """One section, of whatever cells have their record; none without any."""
    timed = sorted(records.where(kind="time"), key=lambda record: int(record.cell.params["length"]))
    names = trained(records)
    figures = [figure for figure in (_times(timed), _pareto(records, timed), _curves(records)) if figure is not None]
    tables = [table for table in (_quality(records), _costs(timed), _failures(timed)) if table is not None]
    if not figures and not tables:
        return []
    return [Section("attention", TITLE, QUESTION, _lead(records, timed, names), tuple(figures), tuple(tables))]


def _lead(records: Records, timed: Sequence[Record], names: Sequence[str]) -> str:
    said = []
    if names:
        want = runs(records, names[0])[0].cell.params
        order = sorted(names, key=lambda name: held_out(records, name))
        said.append(
            f"A small GPT-2 ({want['depth']} blocks, width {want['dim']}) was trained {want['steps']} steps on the "
            f"same bytes of {want['text']} with each of {len(names)} attention mechanisms, nothing else changed; the "
            f"lowest held-out loss is {held_out(records, order[0]):.2f} nats a byte, with {order[0]}, the highest "
            f"{held_out(records, order[-1]):.2f}, with {order[-1]}."
        )
    if timed:
        want = timed[-1].cell.params
        found = timed[-1].measured["mechanisms"]
        order = sorted(found, key=lambda name: float(found[name]["seconds"]["value"]))
        if order:
            said.append(
                f"One layer (width {want['dim']}, {want['heads']} heads) was timed forward and backward, all "
                f"mechanisms in every round: at {want['length']:,} tokens {order[0]} is the fastest with "
                f"{_milliseconds(found[order[0]]):.1f} ms, {order[-1]} the slowest with "
                f"{_milliseconds(found[order[-1]]):.1f} ms."
            )
    return " ".join(said)


def _milliseconds(found: Any, part: str = "seconds") -> float:
    return 1000 * float(found[part]["value"])


def _times(timed: Sequence[Record]) -> Figure | None:
    rows = [
        {
            "mechanism": name,
            "tokens": int(record.cell.params["length"]),
            "milliseconds": _milliseconds(found),
            "low": 1000 * found["seconds"]["low"],
            "high": 1000 * found["seconds"]["high"],
        }
        for record in timed
        for name, found in record.measured["mechanisms"].items()
    ]
    if not rows:
        return None
    chart = charts.line(
        pd.DataFrame(rows),
        "tokens",
        "milliseconds",
        color="mechanism",
        band=("low", "high"),
        x_log=True,
        y_log=True,
        y_title="ms, forward and backward",
    )
    caption = "One attention layer, median of interleaved rounds with its bootstrap interval; both axes logarithmic."
    return Figure("attention-time", "Time against length", caption, chart)


def _pareto(records: Records, timed: Sequence[Record]) -> Figure | None:
    if not timed:
        return None
    length = int(timed[-1].cell.params["length"])
    rows = [
        {
            "mechanism": name,
            "milliseconds": _milliseconds(timed[-1].measured["mechanisms"][name]),
            "held_out_loss": held_out(records, name),
        }
        for name in trained(records)
        if name in timed[-1].measured["mechanisms"]
    ]
    if not rows:
        return None
    chart = charts.scatter(
        pd.DataFrame(rows),
        "milliseconds",
        "held_out_loss",
        color="mechanism",
        label="mechanism",
        x_log=True,
        x_title=f"ms a layer at {length:,} tokens",
        y_title="held-out loss, nats a byte",
    )
    caption = "Left is faster, down is better. Eager, sdpa and flash compute the same function, so only time differs."
    return Figure("attention-pareto", "Quality against time", caption, chart)


def _curves(records: Records) -> Figure | None:
    rows = [row for name in trained(records) for row in _curve(name, runs(records, name))]
    if not rows:
        return None
    chart = charts.line(
        pd.DataFrame(rows), "step", "loss", color="mechanism", points=False, y_title="training loss, nats a byte"
    )
    caption = "Mean over seeds, smoothed over neighbouring steps. Every mechanism saw the same text in the same order."
    return Figure("attention-loss", "Loss while training", caption, chart)


def _curve(name: str, found: Sequence[Record]) -> list[dict[str, Any]]:
    losses = np.mean([record.result["losses"] for record in found], axis=0)
    parts = np.array_split(losses, min(POINTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    return [
        {"mechanism": name, "step": int(end), "loss": float(part.mean())} for end, part in zip(ends, parts, strict=True)
    ]


def _quality(records: Records) -> Table | None:
    rows = [
        {
            "mechanism": name,
            "held-out loss": held_out(records, name),
            "bits a byte": held_out(records, name) / np.log(2),
            "parameters": int(runs(records, name)[0].result["parameters"]),
            "training seconds": float(np.median([r.measured["train_seconds"] for r in runs(records, name)])),
            "seeds": len(runs(records, name)),
        }
        for name in trained(records)
    ]
    if not rows:
        return None
    return Table("Trained alike", pd.DataFrame(rows), "Loss in nats a byte on text the models have not seen.")


def _costs(timed: Sequence[Record]) -> Table | None:
    rows = []
    for record in timed:
        kernels = record.context.get("kernels", {})
        for name, found in record.measured["mechanisms"].items():
            facts, metered = record.result["mechanisms"][name], found["metered"] or {}
            ratio = found["ratio"]
            rows.append(
                {
                    "tokens": int(record.cell.params["length"]),
                    "mechanism": name,
                    "kernel": kernels.get(name),
                    "ms": _milliseconds(found),
                    f"× {record.result['reference']}": None if ratio is None else ratio["value"],
                    "decode step, ms": _milliseconds(found, "decode_seconds"),
                    "million MACs needed": facts["macs_necessary"] / 1e6,
                    "million MACs done": facts["macs_executed"] / 1e6,
                    "peak memory, MB": None if not metered else metered["peak_bytes"] / 1e6,
                    "cache bytes a token": facts["cache_bytes_a_token"],
                    "joules": (metered.get("energy") or {}).get("value"),
                }
            )
    if not rows:
        return None
    caption = (
        "One layer, forward and backward. MACs are those of the products between activations in the forward pass; "
        "memory is what the process grew by in a round of its own, beyond what it could use again; a dash is not "
        "measured."
    )
    return Table("Cost of a layer", pd.DataFrame(rows), caption)


def _failures(timed: Sequence[Record]) -> Table | None:
    rows = [
        {"tokens": int(record.cell.params["length"]), "mechanism": name, "error": error}
        for record in timed
        for name, error in record.measured["failed"].items()
    ]
    return Table("What could not run here", pd.DataFrame(rows)) if rows else None
