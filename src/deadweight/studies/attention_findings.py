"""What follows from the attention study's records, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deadweight.lab import Estimate, Finding, Record, Records, bootstrap_mean, paired_t

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


def reference(names: Sequence[str]) -> str:
    """What the others are compared with: sdpa, or the first where it is absent."""
    return "sdpa" if "sdpa" in names else names[0]


def findings(records: Records) -> list[Finding]:
    """Times, quality, cache and energy, as far as the records go."""
    timed = sorted(records.where(kind="time"), key=lambda record: int(record.cell.params["length"]))
    found = _quality(records)
    if timed:
        found += [*_times(timed[-1]), *_cache(timed[-1]), *_energy(timed[-1])]
    return found


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


def runs(records: Records, mechanism: str) -> list[Record]:
    """The training runs of a mechanism, by seed."""
    found = records.where(kind="train", mechanism=mechanism)
    return sorted(found, key=lambda record: int(record.cell.params["seed"]))


def trained(records: Records) -> list[str]:
    """The mechanisms that were trained, in the order of their cells."""
    return list(dict.fromkeys(record.cell.params["mechanism"] for record in records.where(kind="train")))


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


def held_out(records: Records, name: str) -> float:
    """Mean held-out loss over seeds, nats a byte."""
    return float(np.mean([record.result["held_out_loss"] for record in runs(records, name)]))


def _best(records: Records, names: Sequence[str]) -> Finding:
    order = sorted(names, key=lambda name: held_out(records, name))
    best = runs(records, order[0])
    windows = np.mean([record.result["window_losses"] for record in best], axis=0)
    tokens = best[0].result["tokens"]
    claim = (
        f"After {tokens:,} bytes of text, the same for all {len(names)} mechanisms, {named(order[0])} has the lowest "
        f"held-out loss, {held_out(records, order[0]):.2f} nats a byte; {named(order[-1])} has the highest, "
        f"{held_out(records, order[-1]):.2f}."
    )
    return Finding.of(
        "attention-loss-ranking", "attention", claim, bootstrap_mean(windows), "nats a byte",
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


def _energy(record: Record) -> list[Finding]:
    """The least energy where it was read; else that it was not, and why."""
    readings = {
        name: found["metered"]["energy"] for name, found in record.measured["mechanisms"].items() if found["metered"]
    }
    known = {name: reading for name, reading in readings.items() if reading["value"] is not None}
    if not readings:
        return []
    length, estimate = record.cell.params["length"], None
    if known:
        name = min(known, key=lambda one: float(known[one]["value"]))
        estimate = float(known[name]["value"])
        claim = (
            f"At {length:,} tokens {named(name)} takes the least energy, {estimate:.3g} J a layer forward and backward "
            f"({known[name]['provenance']})."
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
            low=None,
            high=None,
            n=len(known),
            evidence=(record.key,),
            command=COMMAND,
        )
    ]
