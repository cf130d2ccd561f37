"""From the turns of a race to a record: medians with intervals, ratios paired round by round, the meter's own cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from deadweight.studies.attention_race import Racer

from deadweight.errors import CellFailed
from deadweight.lab import Estimate, Json, Outcome
from deadweight.meters import IdlePower

BOOTSTRAP = 4000
TRAINING = 3  # products of a training step per one of the forward pass: each has two in the backward pass
ENERGIES = ("energy", "energy_above_idle", "power")


def outcome(
    racers: Sequence[Racer],
    *,
    reference: str,
    tokens: int,
    peak: float | None = None,
    idle: IdlePower | None = None,
) -> Outcome:
    """The record of a race over `tokens` tokens a step.

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
    failed = {racer.name: racer.error for racer in racers if racer.error is not None}
    if len(failed) == len(racers):
        raise CellFailed("no mechanism could run: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    base = next((racer for racer in racers if racer.name == reference and racer.error is None), None)
    return Outcome(
        {"mechanisms": {r.name: r.first["facts"] for r in racers if r.first is not None}, "reference": reference},
        {
            "mechanisms": {r.name: _measured(r, base, tokens, peak) for r in racers if r.error is None},
            "failed": failed,
            "idle": None if idle is None else idle.as_json(),
            "peak_flops": peak,
        },
        {"kernels": {racer.name: _kernel(racer) for racer in racers}},
    )


def _kernel(racer: Racer) -> str | None:
    """Every kernel that ran in a timed round; more than one means that the times are of a mixture."""
    ran = list(dict.fromkeys(str(turn["kernel"]) for turn in racer.turns))
    return " + ".join(ran) or (str(racer.first["kernel"]) if racer.first is not None else None)


def _measured(racer: Racer, base: Racer | None, tokens: int, peak: float | None) -> dict[str, Json]:
    """Of one mechanism.

    seconds, prefill_seconds, decode_seconds: medians over rounds; `ratio`, `prefill_ratio`, `decode_ratio`: to the
    reference, paired by round. rounds: the seconds of each. tokens_per_second: of training steps.
    flops_necessary, flops_executed: of a step. mfu: necessary ones a second as a share of the machine's peak.
    peak_bytes: of the first step, above what was there. metered: see :func:`_metered`. meter_cost: metered over bare.
    """
    assert racer.first is not None
    steps = _of(racer, "step")
    facts = racer.first["facts"]
    necessary = 2 * TRAINING * (facts["macs_linear"] + facts["macs_necessary"])
    seconds = median_interval(steps)
    told: dict[str, Json] = {
        "seconds": as_json(seconds),
        "ratio": _ratio(racer, base, "step"),
        "rounds": steps,
        "tokens_per_second": tokens / seconds.value,
        "flops_necessary": necessary,
        "flops_executed": 2 * TRAINING * (facts["macs_linear"] + facts["macs_executed"]),
        "mfu": None if peak is None else necessary / seconds.value / peak,
        "peak_bytes": racer.first["peak_bytes"],
        "peak_source": racer.first["peak_source"],
    }
    for part in ("prefill", "decode"):
        values = _of(racer, part)
        told[f"{part}_seconds"] = as_json(median_interval(values)) if values else None
        told[f"{part}_ratio"] = _ratio(racer, base, part)
        told[f"{part}_rounds"] = values
    told["metered"] = _metered(racer.meters, tokens)
    told["meter_cost"] = _meter_cost(racer.meters)
    return told


def _of(racer: Racer, part: str) -> list[float]:
    return [float(turn[part]) for turn in racer.turns if part in turn]


def _ratio(racer: Racer, base: Racer | None, part: str) -> Json:
    if base is None or not (ours := _of(racer, part)) or not (theirs := _of(base, part)):
        return None
    return as_json(median_interval([one / two for one, two in zip(ours, theirs, strict=True)]))


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
    told["joules_a_token"] = _scaled(told["energy"], tokens)
    told["energy_parts"] = {
        part: _reading([meter["energy_parts"][part] for meter in meters], [m["times"] for m in meters])
        for part in last["energy_parts"]
    }
    told["seconds"] = float(np.median([meter["seconds"] / meter["times"] for meter in meters]))
    return told


def _reading(rounds: Sequence[dict[str, Any]], times: Sequence[int]) -> dict[str, Any]:
    lost = next((reading for reading in rounds if reading["value"] is None), None)
    if lost is not None:
        return {**lost, "low": None, "high": None, "n": 0}
    found = median_interval([reading["value"] / count for reading, count in zip(rounds, times, strict=True)])
    return {**rounds[-1], **as_json(found)}


def _scaled(reading: dict[str, Any], tokens: int) -> dict[str, Any]:
    shared = {name: None if reading[name] is None else reading[name] / tokens for name in ("value", "low", "high")}
    return {**reading, **shared, "unit": "J a token"}


def _meter_cost(meters: Sequence[dict[str, Json]]) -> Json:
    """What the meter itself costs: seconds under it over seconds of the same work without, paired and interleaved;
    `edges` is the time spent turning it on and off, outside the measured time, as a share of that."""
    if not meters:
        return None
    pairs = [meter["seconds"] / meter["bare_seconds"] for meter in meters]
    edges = [meter["edges_seconds"] / meter["seconds"] for meter in meters]
    both = [[meter["bare_seconds"], meter["seconds"]] for meter in meters]
    return {"ratio": as_json(median_interval(pairs)), "edges": float(np.median(edges)), "pairs": both}


def as_json(estimate: Estimate) -> dict[str, Json]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def median_interval(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median with a percentile bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(data), size=(BOOTSTRAP, len(data)))
    low, high = np.quantile(np.median(data[drawn], axis=1), [0.025, 0.975])
    return Estimate(float(np.median(data)), float(low), float(high), len(data))
