"""The attention study's part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from deadweight.studies.attention_paper import paper_figures, paper_tables, undrawn
from deadweight.studies.attention_records import all_layers, held_out, layers, runs, timed_model, trained, unit_of
from deadweight.studies.attention_tables import costs, failures, fronts, milliseconds, quality, scaling, unmeasured

from deadweight.lab import Record, Records
from deadweight.report import Figure, Section, charts

TITLE = "Attention: what each mechanism costs"
QUESTION = "Which attention mechanism costs what: time, memory, energy, quality?"
POINTS = 60  # of a loss curve


def sections(records: Records, *, paper: bool = False) -> list[Section]:
    """One section, of whatever cells have their record; none without any. `paper` adds the paper's own figures."""
    timed, model = layers(records), timed_model(records)
    every = [*all_layers(records), *([] if model is None else [model])]
    drawn = [_times(timed), _pareto(records, model, timed), *([] if paper else [_curves(records)])]
    figures = [figure for figure in drawn if figure is not None]
    tabled = [quality(records), fronts(records), scaling(records), costs(all_layers(records))]
    tables = [table for table in (*tabled, unmeasured(every), failures(every)) if table is not None]
    if paper:
        figures += paper_figures(records, _curves)
        tables = paper_tables(records) + tables
    if not figures and not tables:
        return []
    lead = _lead(records, timed) + (_undrawn(records) if paper else "")
    return [Section("attention", TITLE, QUESTION, lead, tuple(figures), tuple(tables))]


def _undrawn(records: Records) -> str:
    titles = undrawn(records)
    return f" Not measured here, so not drawn: {'; '.join(titles)}." if titles else ""


def _lead(records: Records, timed: Sequence[Record]) -> str:
    names, said = trained(records), []
    if names:
        want = runs(records, names[0])[0].cell.params
        order = sorted(names, key=lambda name: held_out(records, name))
        said.append(
            f"A small GPT-2 ({want['depth']} blocks, width {want['dim']}) was trained {want['steps']} steps on the "
            f"same text of {want['text']} with each of {len(names)} attention mechanisms, nothing else changed; the "
            f"lowest held-out loss is {held_out(records, order[0]):.2f} {unit_of(records)}, with {order[0]}, the "
            f"highest {held_out(records, order[-1]):.2f}, with {order[-1]}."
        )
    if timed:
        want = timed[-1].cell.params
        found = timed[-1].measured["mechanisms"]
        order = sorted(found, key=lambda name: float(found[name]["seconds"]["value"]))
        if order:
            said.append(
                f"One layer (width {want['dim']}, {want['heads']} heads) was timed forward and backward, all "
                f"mechanisms in every round: at {want['length']:,} tokens {order[0]} is the fastest with "
                f"{milliseconds(found[order[0]]):.1f} ms, {order[-1]} the slowest with "
                f"{milliseconds(found[order[-1]]):.1f} ms."
            )
    return " ".join(said)


def _times(timed: Sequence[Record]) -> Figure | None:
    rows = [
        {
            "mechanism": name,
            "tokens": int(record.cell.params["length"]),
            "milliseconds": milliseconds(found),
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


def _pareto(records: Records, model: Record | None, timed: Sequence[Record]) -> Figure | None:
    """Loss against the time of a training step, or of the longest layer where no model was timed."""
    record = model or (timed[-1] if timed else None)
    if record is None:
        return None
    what = "a training step" if model is not None else f"a layer at {int(record.cell.params['length']):,} tokens"
    rows = [
        {
            "mechanism": name,
            "milliseconds": milliseconds(record.measured["mechanisms"][name]),
            "held_out_loss": held_out(records, name),
        }
        for name in trained(records)
        if name in record.measured["mechanisms"]
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
        x_title=f"ms {what}",
        y_title=f"held-out loss, {unit_of(records)}",
    )
    caption = "Left is faster, down is better. Eager, sdpa and flash compute the same function, so only time differs."
    return Figure("attention-pareto", "Quality against time", caption, chart)


def _curves(records: Records) -> Figure | None:
    names = trained(records)
    epoch = runs(records, names[0])[0].cell.params.get("epoch") if names else None
    rows = [row for name in names for row in _curve(name, runs(records, name), epoch)]
    if not rows:
        return None
    chart = charts.line(
        pd.DataFrame(rows), "epoch" if epoch else "step", "loss", color="mechanism", points=False,
        y_title=f"training loss, {unit_of(records)}",
    )  # fmt: skip
    caption = "Mean over seeds, smoothed over neighbouring steps. Every mechanism saw the same text in the same order."
    return Figure("attention-loss", "Loss while training", caption, chart)


def _curve(name: str, found: Sequence[Record], epoch: int | None) -> list[dict[str, Any]]:
    losses = np.mean([record.result["losses"] for record in found], axis=0)
    parts = np.array_split(losses, min(POINTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    steps = [{"epoch": int(end) / epoch} if epoch else {"step": int(end)} for end in ends]
    return [{"mechanism": name, **step, "loss": float(part.mean())} for step, part in zip(steps, parts, strict=True)]
