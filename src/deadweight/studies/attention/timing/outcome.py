"""From the rounds of a benchmark to a record: medians, ratios paired round by round, the meter's own cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deadweight.errors import CellFailed
from deadweight.lab import Json, Outcome
from deadweight.meters import IdlePower
from deadweight.statistics import Estimate, median
from deadweight.studies.attention.timing.benchmark import Worker

TRAINING = 3  # products a training step needs for one of the forward pass: each has two in the backward pass
ENERGIES = ("energy", "energy_above_idle", "power")


def outcome(
    workers: Sequence[Worker],
    *,
    reference: str,
    tokens: int,
    peak: float | None = None,
    idle: IdlePower | None = None,
) -> Outcome:
    """The record of a benchmark over `tokens` tokens per step.

    peak: FLOP/s of the machine's best matrix product in this dtype, for the share of it that was reached (MFU).

    Returns
    -------
    Outcome
        `result`: what follows from shapes. `measured`: see :func:`_measured`, and the errors of those that fell out.
        `context`: the kernels that really ran.

    Raises
    ------
    CellFailed
        None of them could run.
    """
    failed = {worker.name: worker.error for worker in workers if worker.error is not None}
    if len(failed) == len(workers):
        raise CellFailed("no mechanism could run: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    base = next((worker for worker in workers if worker.name == reference and worker.error is None), None)
    return Outcome(
        {"mechanisms": {r.name: r.first["facts"] for r in workers if r.first is not None}, "reference": reference},
        {
            "mechanisms": {r.name: _measured(r, base, tokens, peak) for r in workers if r.error is None},
            "failed": failed,
            "idle": None if idle is None else idle.as_json(),
            "peak_flops": peak,
        },
        {"kernels": {worker.name: _kernel(worker) for worker in workers}},
    )


def _kernel(worker: Worker) -> str | None:
    """Every kernel that ran in a timed round; more than one means that the times are of a mixture."""
    ran = list(dict.fromkeys(str(turn["kernel"]) for turn in worker.turns))
    return " + ".join(ran) or (str(worker.first["kernel"]) if worker.first is not None else None)


def _measured(worker: Worker, base: Worker | None, tokens: int, peak: float | None) -> dict[str, Json]:
    """Of one mechanism.

    seconds, prefill_seconds, decode_seconds: medians over rounds; `ratio`, `prefill_ratio`, `decode_ratio`: to the
    reference, paired by round. rounds: the seconds of each. tokens_per_second: of training steps.
    flops_necessary: of a step, three products for one of the forward pass. flops_executed: counted, as the step runs,
    what its backward pass recomputes included. mfu: necessary ones a second as a share of the machine's peak.
    peak_bytes: of the first step, above what was there. metered: see :func:`_metered`. meter_cost: metered over bare.
    """
    assert worker.first is not None
    steps = _of(worker, "step")
    facts = worker.first["facts"]
    once = facts["macs_without_gradient"]
    necessary = 2 * (TRAINING * (facts["macs_linear"] + facts["macs_necessary"] - once) + once)
    seconds = median(steps)
    told: dict[str, Json] = {
        "seconds": as_json(seconds),
        "ratio": _ratio(worker, base, "step"),
        "rounds": steps,
        "tokens_per_second": tokens / seconds.value,
        "flops_necessary": necessary,
        "flops_executed": 2 * facts["macs_training_step"],
        "mfu": None if peak is None else necessary / seconds.value / peak,
        "peak_bytes": worker.first["peak_bytes"],
        "peak_source": worker.first["peak_source"],
    }
    for part in ("prefill", "decode"):
        values = _of(worker, part)
        told[f"{part}_seconds"] = as_json(median(values)) if values else None
        told[f"{part}_ratio"] = _ratio(worker, base, part)
        told[f"{part}_rounds"] = values
    told["metered"] = _metered(worker.meters, tokens)
    told["meter_cost"] = _meter_cost(worker.meters)
    return told


def _of(worker: Worker, part: str) -> list[float]:
    return [float(turn[part]) for turn in worker.turns if part in turn]


def _ratio(worker: Worker, base: Worker | None, part: str) -> Json:
    if base is None or not (ours := _of(worker, part)) or not (theirs := _of(base, part)):
        return None
    return as_json(median([one / two for one, two in zip(ours, theirs, strict=True)]))


def _metered(meters: Sequence[dict[str, Json]], tokens: int) -> Json:
    """A step under the meter: joules and mean power as readings with their median over rounds, the rest of the last.

    A reading that is missing in any round is missing.
    """
    if not meters:
        return None
    last = meters[-1]
    told = {name: last[name] for name in last if name not in ENERGIES and name not in ("energy_parts",)}
    for name in ENERGIES:
        told[name] = _reading([meter[name] for meter in meters], [1 if name == "power" else m["times"] for m in meters])
    told["joules_per_token"] = _scaled(told["energy"], tokens)
    told["energy_parts"] = {
        part: _reading([meter["energy_parts"][part] for meter in meters], [m["times"] for m in meters])
        for part in last["energy_parts"]
    }
    told["steps"] = sum(meter["times"] for meter in meters)
    for way in ("disk_read_bytes", "disk_write_bytes"):  # of all metered rounds: per step, divide by `steps`
        moved = [meter[way] for meter in meters]
        told[way] = None if None in moved else sum(moved)
    told["seconds"] = float(np.median([meter["seconds"] / meter["times"] for meter in meters]))
    return told


def _reading(rounds: Sequence[dict[str, Any]], times: Sequence[int]) -> dict[str, Any]:
    lost = next((reading for reading in rounds if reading["value"] is None), None)
    if lost is not None:
        return {**lost, "low": None, "high": None, "n": 0}
    found = median([reading["value"] / count for reading, count in zip(rounds, times, strict=True)])
    return {**rounds[-1], **as_json(found)}


def _scaled(reading: dict[str, Any], tokens: int) -> dict[str, Any]:
    ends = ("value", "low", "high")
    shared = {name: None if reading[name] is None else reading[name] / tokens for name in ends}
    return {**reading, **shared, "unit": "J per token"}


def _meter_cost(meters: Sequence[dict[str, Json]]) -> Json:
    """What the meter itself costs: seconds under it over seconds of the same work without, paired and interleaved;
    `edges` is the time spent turning it on and off, outside the measured time, as a share of that."""
    if not meters:
        return None
    pairs = [meter["seconds"] / meter["bare_seconds"] for meter in meters]
    edges = [meter["edges_seconds"] / meter["seconds"] for meter in meters]
    both = [[meter["bare_seconds"], meter["seconds"]] for meter in meters]
    return {"ratio": as_json(median(pairs)), "edges": float(np.median(edges)), "pairs": both}


def as_json(estimate: Estimate) -> dict[str, Json]:
    """An estimate as a record holds it; `level` 0: low and high are a range, as `label` says."""
    return {
        "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "level": estimate.level,
        "label": estimate.label,
    }  # fmt: skip
