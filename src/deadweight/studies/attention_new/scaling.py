"""What follows from the attention study's records, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from deadweight.studies.attention_derived import after_budget, crossover, exponent
from deadweight.studies.attention_records import (
    held_out,
    layers,
    reference,
    rounds,
    runs,
    timed_model,
    trained,
    unit_of,
)

from deadweight.lab import Estimate, Finding, Record, Records, bootstrap_mean, paired_t
from deadweight.meters import Reading, carbon

EXACT = ("eager", "sdpa", "flash")  # the same function computed in different ways
ENOUGH_SEEDS = 3  # below it nothing can be said about other training runs
COMMAND = "deadweight attention"
NAMES = {
    "eager": "eager attention",
    "sdpa": "PyTorch's fused attention (SDPA)",
    "flash": "the flash kernel",
    "gqa": "grouped-query attention",
    "mqa": "multi-query attention",
    "sliding_window": "sliding-window attention",
    "linear": "linear attention",
    "lsh": "LSH attention",
    "mla": "latent attention (MLA, which brings rotary positions)",
}


def named(mechanism: str, options: Mapping[str, Any] | None = None) -> str:
    """The mechanism as a sentence calls it, with the options that matter."""
    told = {
        "window": "window {}", "groups": "{} key-value heads", "buckets": "{} buckets", "rounds": "{} rounds",
    }  # fmt: skip
    extra = [text.format(options[name]) for name, text in told.items() if options and name in options]
    return NAMES.get(mechanism, mechanism) + (f" ({', '.join(extra)})" if extra else "")


def findings(records: Records, *, carbon_intensity: float | None = None) -> list[Finding]:
    """Times, scaling, quality, cache and energy, as far as the records go."""
    timed, model = layers(records), timed_model(records)
    found = _quality(records)
    if model is not None:
        found += _equal_time(records, model)
    if timed:
        found += [*_times(timed[-1]), *_scaling(timed), *_crossovers(timed), *_cache(timed[-1])]
        found += _energy(timed[-1], carbon_intensity)
    return found


def by_length(timed: Sequence[Record]) -> dict[str, dict[int, list[float]]]:
    """Seconds of every round by mechanism and length, of the mechanisms timed at two lengths or more."""
    gathered: dict[str, dict[int, list[float]]] = {}
    for record in timed:
        for name, seconds in rounds(record).items():
            gathered.setdefault(name, {})[int(record.cell.params["length"])] = seconds
    return {name: found for name, found in gathered.items() if len(found) > 1}


def _scaling(timed: Sequence[Record]) -> list[Finding]:
    """The time of which layer grows slowest and fastest with the length, over all timed lengths."""
    powers = {name: exponent(found) for name, found in by_length(timed).items()}
    if len(powers) < 2:
        return []
    order = sorted(powers, key=lambda name: powers[name].value)
    slow, fast = order[0], order[-1]
    lengths = [int(record.cell.params["length"]) for record in timed]
    claim = (
        f"From {lengths[0]:,} to {lengths[-1]:,} tokens the time of a layer of {named(slow)} grows as the length to "
        f"the power {powers[slow].value:.2f}, that of {named(fast)} to the power {powers[fast].value:.2f}."
    )
    return [
        Finding.of(
            "attention-scaling", "attention", claim, powers[slow], "exponent",
            evidence=[record.key for record in timed], command=COMMAND,
        )
    ]  # fmt: skip


def _crossovers(timed: Sequence[Record]) -> list[Finding]:
    """From which length on a mechanism is faster than the reference, where that lies among the timed lengths."""
    found = by_length(timed)
    base = str(timed[-1].result["reference"])
    told = []
    for name in found:
        if name == base or base not in found or (name in EXACT and base in EXACT):
            continue
        met = crossover(found[name], found[base])
        if met.length is None or not met.settled:
            continue
        options = timed[-1].cell.params["mechanisms"][name]
        claim = (
            f"A layer of {named(name, options)} is {'faster' if met.ahead else 'slower'} than one of {named(base)} "
            f"from about {met.length.value:,.0f} tokens on, forward and backward."
        )
        told.append(
            Finding.of(
                f"attention-crossover-{name}", "attention", claim, met.length, "tokens",
                evidence=[record.key for record in timed], command=COMMAND,
            )
        )  # fmt: skip
    return told


def _equal_time(records: Records, model: Record) -> list[Finding]:
    """Who has the lowest loss once all have been given the time the quickest needs for its whole training."""
    seconds = {name: found["seconds"]["value"] for name, found in model.measured["mechanisms"].items()}
    names = [name for name in trained(records) if name in seconds and runs(records, name)[0].result["held_out_curve"]]
    if len(names) < 2:
        return []
    steps = int(runs(records, names[0])[0].cell.params["steps"])
    budget = steps * min(seconds[name] for name in names)
    spent = {
        name: after_budget([r.result["held_out_curve"] for r in runs(records, name)], seconds[name], budget)
        for name in names
    }
    order = sorted(names, key=lambda name: spent[name].loss.value)
    best, worst = order[0], order[-1]
    claim = (
        f"Given the {budget:.3g} seconds the quickest needs for its {steps} training steps, {named(best)} reaches the "
        f"lowest held-out loss, {spent[best].loss.value:.2f} {unit_of(records)} after {spent[best].steps:.0f} steps; "
        f"{named(worst)} the highest, {spent[worst].loss.value:.2f} after {spent[worst].steps:.0f}."
    )
    evidence = [model.key, *(r.key for name in names for r in runs(records, name))]
    return [
        Finding.of(
            "attention-loss-equal-time", "attention", claim, spent[best].loss, unit_of(records),
            evidence=evidence, command=COMMAND,
        )
    ]  # fmt: skip


def _times(record: Record) -> list[Finding]:
    """The fastest and the slowest layer at the longest length, against the reference, paired round by round."""
    base, length = record.result["reference"], record.cell.params["length"]
    ratios = {
        name: found["ratio"]
        for name, found in record.measured["mechanisms"].items()
        if name != base and found["ratio"] is not None
    }
    if not ratios:
        return []
    order = sorted(ratios, key=lambda name: float(ratios[name]["value"]))
    picked = {"fastest": order[0], "slowest": order[-1]} if len(order) > 1 else {"timed": order[0]}
    told = []
    for place, name in picked.items():
        ratio = ratios[name]
        options = record.cell.params["mechanisms"][name]
        beyond = f", the {place} of {len(ratios) + 1} mechanisms" if place != "timed" else ""
        claim = (
            f"At {length:,} tokens a layer of {named(name, options)} takes {ratio['value']:.2f} times as long as with "
            f"{named(base)}, forward and backward{beyond}."
        )
        told.append(
            Finding.of(
                f"attention-time-{place}", "attention", claim, _estimate(ratio), "× time",
                evidence=[record.key], command=COMMAND,
            )
        )  # fmt: skip
    return told


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(found["value"], found["low"], found["high"], found["n"])


def loss_increase(before: Sequence[Record], after: Sequence[Record]) -> Estimate:
    """Rise of the held-out loss as a share of the reference's, over the seeds both have; lower is better.

    With three seeds or more Student's interval over seeds; with fewer a bootstrap over held-out windows, which says
    nothing about other training runs.
    """
    pairs = [
        (one, two) for one in before for two in after if one.cell.params["seed"] == two.cell.params["seed"]
    ]  # the same seed is the same batches
    shares = [
        (np.subtract(two.result["window_losses"], one.result["window_losses"]) / one.result["held_out_loss"])
        for one, two in pairs
    ]
    if len(shares) >= ENOUGH_SEEDS:
        return paired_t([float(share.mean()) for share in shares], [0.0] * len(shares))
    return bootstrap_mean(np.mean(shares, axis=0))


def _quality(records: Records) -> list[Finding]:
    """Loss of each mechanism that computes something else than full attention, and who learnt best.

    A ranking without verdicts: after so few steps a model is hardly trained.
    """
    names = trained(records)
    if not names:
        return []
    base = reference(names)
    before = runs(records, base)
    told = [_best(records, names)] if len(names) > 1 else []
    for name in names:
        after = runs(records, name)
        shared = {r.cell.params["seed"] for r in before} & {r.cell.params["seed"] for r in after}
        if name == base or (name in EXACT and base in EXACT) or not shared:
            continue
        change = loss_increase(before, after)
        steps = before[0].cell.params["steps"]
        beyond = (
            ""
            if len(shared) >= ENOUGH_SEEDS
            else f" (the interval covers held-out text, not other than {_count(shared)})"
        )
        claim = (
            f"Replacing {named(base)} by {named(name, after[0].cell.params['options'])} makes the held-out loss of a "
            f"small GPT-2 {_changed(change.value)} after {steps} training steps{beyond}."
        )
        told.append(
            Finding.of(
                f"attention-loss-{name}", "attention", claim, change, "share",
                evidence=[r.key for r in (*before, *after)], command=COMMAND,
            )
        )  # fmt: skip
    return told


def _changed(share: float) -> str:
    digits = 1 if abs(share) >= 0.0005 else 2
    return f"{abs(share):.{digits}%} {'higher' if share > 0 else 'lower'}"


def _count(seeds: set[int]) -> str:
    return "this training run" if len(seeds) == 1 else f"these {len(seeds)} training runs"


def _best(records: Records, names: Sequence[str]) -> Finding:
    order = sorted(names, key=lambda name: held_out(records, name))
    best = runs(records, order[0])
    windows = np.mean([record.result["window_losses"] for record in best], axis=0)
    tokens = best[0].result["tokens"]
    unit = unit_of(records)
    claim = (
        f"After {tokens:,} {unit.split()[-1]}s of text, the same for all {len(names)} mechanisms, {named(order[0])} "
        f"has the lowest held-out loss, {held_out(records, order[0]):.2f} {unit}; {named(order[-1])} has the highest, "
        f"{held_out(records, order[-1]):.2f}."
    )
    return Finding.of(
        "attention-loss-ranking", "attention", claim, bootstrap_mean(windows), unit,
        evidence=[r.key for name in names for r in runs(records, name)], command=COMMAND,
    )  # fmt: skip


def _cache(record: Record) -> list[Finding]:
    """The smallest cache against the reference's. Exact: it follows from shapes."""
    facts, base = record.result["mechanisms"], record.result["reference"]
    length = record.cell.params["length"]
    name = min(facts, key=lambda one: int(facts[one]["cache_bytes"]))
    if name == base:
        return []
    share = facts[name]["cache_bytes"] / facts[base]["cache_bytes"]
    options = record.cell.params["mechanisms"][name]
    claim = (
        f"After {length:,} tokens {named(name, options)} keeps {facts[name]['cache_bytes']:,} bytes a layer for "
        f"decoding, {share:.1%} of what {named(base)} keeps."
    )
    return [
        Finding(
            id="attention-cache",
            study="attention",
            claim=claim,
            estimate=share,
            unit="share",
            low=None,
            high=None,
            n=1,
            evidence=(record.key,),
            command=COMMAND,
        )
    ]


def _energy(record: Record, carbon_intensity: float | None) -> list[Finding]:
    """The least energy where it was read; else that it was not, and why."""
    readings = {
        name: found["metered"]["energy"] for name, found in record.measured["mechanisms"].items() if found["metered"]
    }
    known = {name: reading for name, reading in readings.items() if reading["value"] is not None}
    if not readings:
        return []
    length, estimate, low, high = record.cell.params["length"], None, None, None
    if known:
        name = min(known, key=lambda one: float(known[one]["value"]))
        found = known[name]
        estimate, low, high = float(found["value"]), found.get("low"), found.get("high")
        claim = (
            f"At {length:,} tokens {named(name)} takes the least energy, {estimate:.3g} J a layer forward and backward "
            f"({found['provenance']}{_carbon(found, carbon_intensity)})."
        )
    else:
        reading = next(iter(readings.values()))
        claim = f"Energy was not measured: {reading['reason'].rstrip('.')}. `deadweight doctor` says what can be done."
    return [
        Finding(
            id="attention-energy",
            study="attention",
            claim=claim,
            estimate=estimate,
            unit="J",
            low=low,
            high=high,
            n=len(known),
            evidence=(record.key,),
            command=COMMAND,
        )
    ]


def _carbon(found: Mapping[str, Any], intensity: float | None) -> str:
    if intensity is None:
        return ""
    grams = carbon(Reading(found["value"], "J", found["provenance"]), intensity, source="the user of this study")
    return f"; {grams.value:.2g} g CO2e at the {intensity:g} g/kWh given"
