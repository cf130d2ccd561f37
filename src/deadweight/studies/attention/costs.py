"""What a layer, and a training step of the whole model, cost with each mechanism: timed in turns, metered apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
import torch

from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.meters import ModelledEnergy, energy_devices, idle_power, machine_peak
from deadweight.models import torch_dtype
from deadweight.report import Figure, Table, charts
from deadweight.statistics import Estimate, chosen, median, ratio, simultaneous
from deadweight.studies.attention.names import named
from deadweight.studies.attention.records import (
    MISSING,
    all_layers,
    joules,
    layers,
    milliseconds,
    number,
    reference,
    timed_model,
)
from deadweight.studies.attention.timing.benchmark import interleaved_benchmark
from deadweight.studies.attention.timing.outcome import outcome
from deadweight.studies.attention.timing.subject import Subject, causal
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.page import labels
from deadweight.studies.frame.quantity import SECONDS, TIME_RATIO
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.training import suitable_threads

IDLE_SECONDS = 5.0  # at rest before a benchmark, where there is something to read
PEAK_SECONDS = 0.2  # of matrix products before a benchmark
_CHECK = "Before taking it, see in this study what it does to the loss, and train longer to be sure."


class Costs(Experiment):
    """One cell per length, batch and dtype holds all mechanisms; rankings, no verdicts."""

    kind: ClassVar[str] = "time"
    bytes_per_cell: ClassVar[int] = 54_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        """The whole model at the length it is trained at, then single layers by length, batch and dtype."""
        for name in study.mechanisms:
            causal(name, study.timing_dim, study.timing_heads, study.timing_options(name))
        turns = (study.rounds + 2 * study.metered_rounds + 3) * len(study.mechanisms)
        shape: dict[str, Json] = {"depth": study.depth, "vocabulary": study.data().vocabulary}
        cells = []
        if study.timed_model:
            model = {"dim": study.dim, "heads": study.heads, **shape, "batch": study.batch, "dtype": study.dtype}
            want: dict[str, Json] = {"length": study.length, "subject": "model", **model}
            options = {name: study.training_options(name) for name in study.mechanisms}
            cells.append(self._cell(study, want, options, turns * (0.01 + study.step_macs() / 3e10)))
        layer = {"dim": study.timing_dim, "heads": study.timing_heads, **shape}
        options = {name: study.timing_options(name) for name in study.mechanisms}
        for dtype in study.timing_dtypes or (study.dtype,):
            for batch in study.timing_batches:
                for length in study.timing_lengths:
                    want = {"length": length, "subject": "layer", **layer, "batch": batch, "dtype": dtype}
                    macs = batch * study.timing_dim * (4 * study.timing_dim * length + length**2)
                    cells.append(self._cell(study, want, options, turns * macs / 4e9))
        return cells

    def _cell(self, study: Any, want: dict[str, Json], mechanisms: dict[str, Any], seconds: float) -> Cell:
        measuring: dict[str, Json] = {"rounds": study.rounds, "metered_rounds": study.metered_rounds,
                                      "seed": study.seed}  # fmt: skip
        measuring |= {} if study.watts is None else {"watts": study.watts}
        params = {**want, **measuring, "mechanisms": mechanisms}
        seconds = 2 + 0.3 * len(mechanisms) + seconds
        return Cell(study.kind, self.kind, params, version=study.version, exclusive=True, seconds=seconds)

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        want = cell.params
        shape = {n: want[n] for n in ("subject", "dim", "heads", "depth", "vocabulary", "batch", "length", "dtype")}
        subjects = {
            name: Subject(name, options, **shape, seed=want["seed"], device=bench.device)
            for name, options in want["mechanisms"].items()
        }
        base = reference(list(subjects))
        small = replace(subjects[base], length=1, device="cpu").build().network
        found = energy_devices()
        model = [] if study.watts is None else [ModelledEnergy(study.watts, "the user of this study")]
        readable = [device for device in found if device.provenance != "missing"]
        idle = idle_power([*(readable if model else found), *model], seconds=IDLE_SECONDS)
        with suitable_threads(small, bench.device) as threads:
            peak = machine_peak(torch_dtype(want["dtype"]) or torch.float32, device=bench.device, seconds=PEAK_SECONDS)
            workers = interleaved_benchmark(
                subjects,
                rounds=want["rounds"],
                metered=want["metered_rounds"],
                threads=threads,
                devices=None if readable else found,  # counters are opened by the process that reads them
                model=model,
                window=max((device.shortest for device in readable), default=0.0),
                idle=idle,
                note=bench.note,
            )
        tokens = want["batch"] * want["length"]
        result = outcome(workers, reference=base, tokens=tokens, peak=peak, idle=idle)
        result.context["threads"] = threads
        return result

    def effects(self, records: Records, margin: float) -> list[Effect]:
        timed = layers(records)
        return [*(_ranking(timed[-1]) if timed else []), *_seconds(all_layers(records))]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        timed = layers(records)
        if not timed:
            return []
        want, found = timed[-1].cell.params, timed[-1].measured["mechanisms"]
        order = sorted(found, key=lambda name: float(found[name]["seconds"]["value"]))
        if not order:
            return []
        return [
            f"One layer (width {want['dim']}, {want['heads']} heads) was timed forward and backward, all mechanisms "
            f"in every round: at {want['length']:,} tokens {order[0]} is the fastest with "
            f"{milliseconds(found[order[0]]):.1f} ms, {order[-1]} the slowest with "
            f"{milliseconds(found[order[-1]]):.1f} ms."
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        figure = _times(layers(records), {pair.effect.id: pair.effect for pair in settled})
        return [] if figure is None else [figure]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        every, model = all_layers(records), timed_model(records)
        shown = [*every, *([] if model is None else [model])]
        tables = [_table(every), _unmeasured(shown), _failures(shown)]
        return [table for table in tables if table is not None]


def _ranking(record: Record) -> list[Effect]:
    """The fastest and the slowest layer at the longest length, against the reference, paired round by round."""
    base, length = record.result["reference"], record.cell.params["length"]
    found = record.measured["mechanisms"]
    if base not in found:
        return []
    others = [name for name in found if name != base and len(found[name]["rounds"]) == len(found[base]["rounds"])]
    level = simultaneous(max(1, len(others)))
    ratios = {name: ratio(found[name]["rounds"], found[base]["rounds"], level=level) for name in others}
    if not ratios:
        return []
    order = sorted(ratios, key=lambda name: ratios[name].value)
    picked = {"fastest": order[0], "slowest": order[-1]} if len(order) > 1 else {"timed": order[0]}
    effects = []
    for place, name in picked.items():
        options = record.cell.params["mechanisms"][name]
        beyond = f", the {place} of {len(ratios) + 1} mechanisms" if place != "timed" else ""
        statement = (
            f"At {length:,} tokens a layer of {named(name, options)} takes {ratios[name].value:.2f} times as long as "
            f"with {named(base)}, forward and backward{beyond}."
        )
        estimate = _of_the_best(ratio(found[name]["rounds"], found[base]["rounds"]), ratios[name], len(ratios))
        effects.append(
            Effect(
                f"time-{place}", "", "", TIME_RATIO, estimate, evidence=(record.key,), statement=statement,
                remedy=Remedy(sentence=_CHECK) if place == "fastest" else None,
            )
        )  # fmt: skip
    return effects


def _of_the_best(alone: Estimate, simultaneously: Estimate, among: int) -> Estimate:
    """With rounds enough the interval that holds for all at once; else what the rounds show, called that."""
    return chosen(simultaneously, among) if simultaneously.covers else replace(alone, level=0.0, label=_range(alone))


def _range(estimate: Estimate) -> str:
    return estimate.label if not estimate.covers else "95 % interval for one mechanism, not for the best of several"


def _seconds(timed: Sequence[Record]) -> list[Effect]:
    return [
        Effect(
            _seconds_id(record, name), "", "", SECONDS, median(found["rounds"]), evidence=(record.key,), shown=False,
            statement=f"{name} takes {found['seconds']['value']:.3g} s.",
        )
        for record in timed
        for name, found in record.measured["mechanisms"].items()
    ]  # fmt: skip


def _seconds_id(record: Record, name: str) -> str:
    want = record.cell.params
    return f"seconds-{name}-{want['length']}-{want['batch']}-{want['dtype']}"


def _times(timed: Sequence[Record], effects: Mapping[str, Effect]) -> Figure | None:
    shown = {
        (int(record.cell.params["length"]), name): effects[_seconds_id(record, name)]
        for record in timed
        for name in record.measured["mechanisms"]
    }
    if not shown:
        return None
    rows = [
        {
            "mechanism": name,
            "tokens": length,
            "milliseconds": 1000 * effect.estimate.value,
            "low": None if effect.estimate.low is None else 1000 * effect.estimate.low,
            "high": None if effect.estimate.high is None else 1000 * effect.estimate.high,
        }
        for (length, name), effect in shown.items()
    ]
    chart = charts.line(
        pd.DataFrame(rows), "tokens", "milliseconds", color="mechanism", band=("low", "high"), x_log=True, y_log=True,
        y_title="ms, forward and backward",
    )  # fmt: skip
    caption = (
        f"One attention layer, median of interleaved rounds; both axes logarithmic. {labels(list(shown.values()))}"
    )
    return Figure("attention-time", "Time against length", caption, chart)


def _table(timed: Sequence[Record]) -> Table | None:
    """Every timed layer."""
    rows = [_row(record, name, found) for record in timed for name, found in record.measured["mechanisms"].items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    same = [column for column in ("batch", "dtype") if frame[column].nunique() == 1]
    caption = (
        "One layer; ms, memory and energy of a training step (forward and backward), medians of interleaved rounds. "
        "MACs are those of the products between activations in the forward pass; of the step, all products as they "
        "run, recomputation on the way back included. MFU is needed operations per second as a share of this machine's "
        "fastest matrix product; memory is the peak of the first step above what was there; meter: seconds under the "
        "meter over seconds without."
    )
    return Table("Cost of a layer", frame.drop(columns=same).dropna(axis="columns", how="all"), caption)


def _row(record: Record, name: str, found: Any) -> dict[str, Any]:
    facts, want = record.result["mechanisms"][name], record.cell.params
    relative, cost = found["ratio"], found["meter_cost"]
    step = facts.get("macs_training_step")
    return {
        "tokens": int(want["length"]),
        "batch": int(want["batch"]),
        "dtype": want["dtype"],
        "mechanism": name,
        "kernel": record.context.get("kernels", {}).get(name),
        "ms": milliseconds(found),
        f"× {record.result['reference']}": None if relative is None else relative["value"],
        "tokens/s": found["tokens_per_second"],
        "prefill, ms": milliseconds(found, "prefill_seconds"),
        "decode step, ms": milliseconds(found, "decode_seconds"),
        "million MACs needed": facts["macs_necessary"] / 1e6,
        "million MACs done": facts["macs_executed"] / 1e6,
        "million MACs of the step": None if step is None else step / 1e6,
        "MFU": found["mfu"],
        "peak memory, MB": found["peak_bytes"] / 1e6,
        "cache bytes per token": facts["cache_bytes_per_token"],
        "joules": number(joules(found)),
        "µJ per token": number(None if found["metered"] is None else found["metered"]["joules_per_token"], 1e6),
        "meter": None if cost is None else cost["ratio"]["value"],
    }


def _failures(timed: Sequence[Record]) -> Table | None:
    rows = [
        {"tokens": int(record.cell.params["length"]), "what": record.cell.params["subject"], "mechanism": name,
         "error": error}
        for record in timed
        for name, error in record.measured["failed"].items()
    ]  # fmt: skip
    return Table("What could not run here", pd.DataFrame(rows)) if rows else None


def _unmeasured(timed: Sequence[Record]) -> Table | None:
    """What is missing, why, and what would help."""
    rows: dict[str, dict[str, Any]] = {}
    for record in timed:
        for found in record.measured["mechanisms"].values():
            metered = found["metered"] or {}
            for name, title in (
                ("energy", "energy"), ("power", "power"), ("energy_above_idle", "energy above rest"),
                ("accelerator_use", "use of the accelerator"),
            ):  # fmt: skip
                reading = metered.get(name)
                if reading is not None and reading["value"] is None:
                    rows.setdefault(title, {"what": title, "value": MISSING, "why": reading["reason"],
                                            "what would help": reading["cure"]})  # fmt: skip
    return Table("What was not measured here", pd.DataFrame(list(rows.values()))) if rows else None


__all__ = ["Costs"]
