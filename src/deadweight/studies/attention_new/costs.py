"""The tables of the attention study. What was not measured reads "missing", and one table says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from deadweight.studies.attention_derived import after_budget, crossover, exponent, front
from deadweight.studies.attention_findings import by_length
from deadweight.studies.attention_records import held_out, joules, layers, runs, timed_model, trained, unit_of

from deadweight.lab import Record, Records
from deadweight.report import Table

MISSING = "missing"


def number(reading: Mapping[str, Any] | None, scale: float = 1.0) -> float | str:
    """A reading's value in another unit, or the word."""
    return MISSING if reading is None or reading["value"] is None else float(reading["value"]) * scale


def milliseconds(found: Any, part: str = "seconds") -> float | None:
    return None if found.get(part) is None else 1000 * float(found[part]["value"])


def quality(records: Records) -> Table | None:
    """Loss after the same tokens, the same seconds and the same joules."""
    names, model = trained(records), timed_model(records)
    timed = {} if model is None else model.measured["mechanisms"]
    seconds = {name: timed[name]["seconds"]["value"] for name in names if name in timed}
    read = {name: number(joules(timed[name])) for name in names if name in timed}
    energy = {name: value for name, value in read.items() if isinstance(value, float)}
    rows = []
    for name in names:
        found = runs(records, name)
        steps = int(found[0].cell.params["steps"])
        curves = [r.result.get("held_out_curve") or [[steps, r.result["held_out_loss"]]] for r in found]
        rows.append(
            {
                "mechanism": name,
                "held-out loss": held_out(records, name),
                "bits": held_out(records, name) / np.log(2),
                "after equal seconds": _after(curves, seconds, name, steps),
                "after equal joules": _after(curves, energy, name, steps),
                "parameters": int(found[0].result["parameters"]),
                "ms a training step": milliseconds(timed[name]) if name in timed else None,
                "training seconds": float(np.median([r.measured["train_seconds"] for r in found])),
                "seeds": len(found),
            }
        )
    if not rows:
        return None
    caption = (
        f"Loss in {unit_of(records)} on text the models have not seen: after the same tokens, then after the time, and "
        "the energy, in which the cheapest finishes. Those are read off the held-out curve, which is of fewer "
        "windows of the text, so that they compare among themselves only, and whose learning rate had not yet "
        "come down for the others. Training runs share the machine, so their seconds are rough; steps are timed apart."
    )
    return Table("Trained alike", pd.DataFrame(rows), caption)


def _after(curves: Any, costs: Mapping[str, float], name: str, steps: int) -> float | str:
    if name not in costs:
        return MISSING
    return after_budget(curves, costs[name], steps * min(costs.values())).loss.value


def costs(timed: Sequence[Record]) -> Table | None:
    """Every timed layer."""
    rows = [
        _cost(record, name, found) for record in timed for name, found in record.measured["mechanisms"].items()
    ]  # fmt: skip
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    same = [column for column in ("batch", "dtype") if frame[column].nunique() == 1]
    caption = (
        "One layer; ms, memory and energy of a training step (forward and backward), medians of interleaved rounds. "
        "MACs are those of the products between activations in the forward pass; MFU is needed operations a second as "
        "a share of this machine's fastest matrix product; memory is the peak of the first step above what was there; "
        "meter: seconds under the meter over seconds without."
    )
    return Table("Cost of a layer", frame.drop(columns=same), caption)


def _cost(record: Record, name: str, found: Any) -> dict[str, Any]:
    facts, want = record.result["mechanisms"][name], record.cell.params
    ratio, cost = found["ratio"], found["meter_cost"]
    return {
        "tokens": int(want["length"]),
        "batch": int(want["batch"]),
        "dtype": want["dtype"],
        "mechanism": name,
        "kernel": record.context.get("kernels", {}).get(name),
        "ms": milliseconds(found),
        f"× {record.result['reference']}": None if ratio is None else ratio["value"],
        "tokens/s": found["tokens_per_second"],
        "prefill, ms": milliseconds(found, "prefill_seconds"),
        "decode step, ms": milliseconds(found, "decode_seconds"),
        "million MACs needed": facts["macs_necessary"] / 1e6,
        "million MACs done": facts["macs_executed"] / 1e6,
        "MFU": found["mfu"],
        "peak memory, MB": found["peak_bytes"] / 1e6,
        "cache bytes a token": facts["cache_bytes_a_token"],
        "joules": number(joules(found)),
        "µJ a token": number(None if found["metered"] is None else found["metered"]["joules_a_token"], 1e6),
        "meter": None if cost is None else cost["ratio"]["value"],
    }


def scaling(records: Records) -> Table | None:
    """Exponents over the lengths and crossovers with the reference."""
    timed = layers(records)
    found = by_length(timed)
    if not found:
        return None
    base = str(timed[-1].result["reference"])
    rows = []
    for name, measured in found.items():
        power, last = exponent(measured), exponent(dict(sorted(measured.items())[-2:]))
        rows.append(
            {
                "mechanism": name,
                "exponent": power.value,
                "from": power.low,
                "to": power.high,
                "over the last doubling" if _doubles(measured) else "over the last two lengths": last.value,
                f"against {base}": _met(measured, found.get(base)) if name != base else "–",
            }
        )
    caption = (
        "Seconds of a training step as a power of the length, fitted over all timed lengths (with its interval) and "
        f"over the last two; and where its time crosses that of {base}, between timed lengths."
    )
    return Table("How time grows with length", pd.DataFrame(rows), caption)


def _doubles(measured: Mapping[int, Any]) -> bool:
    before, last = sorted(measured)[-2:]
    return last == 2 * before


def _met(ours: Mapping[int, Sequence[float]], theirs: Mapping[int, Sequence[float]] | None) -> str:
    if theirs is None or len(set(ours) & set(theirs)) < 2:
        return "no reference"
    met = crossover(ours, theirs)
    doubt = "" if met.settled else " (not settled)"
    if met.length is None:
        return f"{'faster' if met.ahead else 'slower'} at every length{doubt}"
    at = f"{met.length.value:,.0f} ({met.length.low:,.0f} to {met.length.high:,.0f})"
    return f"{'faster' if met.ahead else 'slower'} from {at}{doubt}"


def fronts(records: Records) -> Table | None:
    """Which mechanisms no other beats on both loss and a cost."""
    model = timed_model(records)
    if model is None:
        return None
    found = model.measured["mechanisms"]
    names = [name for name in trained(records) if name in found]
    costs: dict[str, dict[str, float | str]] = {
        "time of a training step": {n: found[n]["seconds"]["value"] for n in names},
        "peak memory of a training step": {n: float(found[n]["peak_bytes"]) for n in names},
        "energy of a training step": {n: number(joules(found[n])) for n in names},
        "cache bytes a token": {n: model.result["mechanisms"][n]["cache_bytes_a_token"] for n in names},
    }
    rows = []
    for cost, values in costs.items():
        known = {name: (value, held_out(records, name)) for name, value in values.items() if isinstance(value, float)}
        rows.append({"cost": cost, "on the front, cheapest first": ", ".join(front(known)) or MISSING})
    if not names:
        return None
    return Table("Not beaten on both loss and cost", pd.DataFrame(rows), "The Pareto front of the mean held-out loss.")


def failures(timed: Sequence[Record]) -> Table | None:
    rows = [
        {"tokens": int(record.cell.params["length"]), "what": record.cell.params["subject"], "mechanism": name,
         "error": error}
        for record in timed
        for name, error in record.measured["failed"].items()
    ]  # fmt: skip
    return Table("What could not run here", pd.DataFrame(rows)) if rows else None


def unmeasured(timed: Sequence[Record]) -> Table | None:
    """What is missing, why, and what would help."""
    told: dict[str, dict[str, Any]] = {}
    for record in timed:
        for found in record.measured["mechanisms"].values():
            metered = found["metered"] or {}
            for name, title in (
                ("energy", "energy"), ("power", "power"), ("energy_above_idle", "energy above rest"),
                ("accelerator_use", "use of the accelerator"),
            ):  # fmt: skip
                reading = metered.get(name)
                if reading is not None and reading["value"] is None:
                    told.setdefault(title, {"what": title, "value": MISSING, "why": reading["reason"],
                                            "what would help": reading["cure"]})  # fmt: skip
    return Table("What was not measured here", pd.DataFrame(list(told.values()))) if told else None
