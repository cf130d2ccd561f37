"""What follows from the records of the mlp study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from deadweight.lab import Estimate, Finding, Record, Records, accuracy_loss, bootstrap_mean, paired_t
from deadweight.studies import mlp_language
from deadweight.studies.answers import from_bits

CUT = {
    "grouped": "Letting every two neighbouring blocks share one MLP of both's best units, refitted without labels,",
    "shallow": "Keeping the two thirds of each MLP's units that do most, refitted without labels,",
}


def findings(records: Records, *, margin: float, command: str) -> list[Finding]:
    """Losses of accuracy first, then what training and time have to say."""
    found = [*_cut_findings(records, margin, command), *mlp_language.findings(records, margin, command)]
    others = variants(records)[1:]
    found += [_accuracy(records, name, margin, command) for name in others]
    found += [_degradation(records, name, command) for name in others]
    for record in records.where(kind="time"):
        found += [_speed(record, name, command) for name in others if name in record.measured["rounds"]]
    return found


def variants(records: Records) -> list[str]:
    """Variants that were trained, the baseline first; none while the baseline is missing."""
    names = list(dict.fromkeys(str(record.cell.params["variant"]) for record in records.where(kind="train")))
    return ["baseline", *[name for name in names if name != "baseline"]] if "baseline" in names else []


def pairs(records: Records, name: str) -> list[tuple[Record, Record]]:
    """(baseline, variant) of every seed that has both."""
    runs = {
        variant: {record.cell.params["seed"]: record for record in records.where(kind="train", variant=variant)}
        for variant in ("baseline", name)
    }
    return [(runs["baseline"][seed], runs[name][seed]) for seed in runs["baseline"] if seed in runs[name]]


def loss(records: Records, name: str, margin: float) -> Estimate:
    """Top-1 of the baseline minus top-1 of a variant, paired by seed (the paper's test)."""
    both = pairs(records, name)
    before, after = ([float(record.result["top1"]) for record in side] for side in zip(*both, strict=True))
    return paired_t(before, after, margin, resolution=1 / int(both[0][0].result["n"]))


def effect_size(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Cohen's d of paired values: the mean loss in standard deviations of the losses; None without a spread.

    0.2 is called small, 0.8 large (Cohen, 1988); with few seeds it is as rough as the spread it divides by.
    """
    losses = [one - other for one, other in zip(before, after, strict=True)]
    if len(losses) < 2 or max(losses) - min(losses) < 1e-12:
        return None
    return statistics.fmean(losses) / statistics.stdev(losses)


def change(value: float) -> str:
    """A loss as a person says it."""
    shown = f"{abs(100 * value):.1f} points"
    return f"costs {shown}" if value > 0 else f"gains {shown}" if value < 0 else "changes nothing: 0.0 points"


def did(name: str, record: Record) -> str:
    """What was done to make a variant, as the start of a sentence."""
    params = record.cell.params
    width = f"{params.get('keep', 0.5):.0%} of its width"
    if name == "shallow":
        return f"Cutting every MLP to {width} before training"
    if name == "thin":
        return f"Building every MLP at {width}"
    size, pattern = params.get("size", 2), params.get("pattern", "adjacent")
    blocks = f"{size} neighbouring blocks" if pattern == "adjacent" else f"{size} blocks ({pattern})"
    return f"Sharing each MLP between {blocks}"


def share_removed(before: Record, after: Record) -> float:
    return 1 - float(after.result["parameters"]) / float(before.result["parameters"])


def _accuracy(records: Records, name: str, margin: float, command: str) -> Finding:
    both = pairs(records, name)
    estimate = loss(records, name, margin)
    removed = share_removed(*both[0])
    claim = (
        f"{did(name, both[0][1])} removes {removed:.0%} of the parameters and {change(estimate.value)} of accuracy "
        f"({_mean(both, 0):.1%} before, {_mean(both, 1):.1%} after; {_seeds(len(both))})."
    )
    return Finding.of(
        f"mlp-{name}", "mlp", claim, estimate, "accuracy", margin=margin, evidence=_keys(both), command=command
    )


def _degradation(records: Records, name: str, command: str) -> Finding:
    both = pairs(records, name)
    before, after = ([float(record.result["degradation"]) for record in side] for side in zip(*both, strict=True))
    estimate = paired_t(before, after, resolution=1 / int(both[0][0].result["n"]))
    size = sum(before) / len(before), sum(after) / len(after)
    claim = (
        f"From its best epoch to its last the baseline lost {100 * size[0]:.1f} points of accuracy, "
        f"the {name} model {100 * size[1]:.1f}: a difference of {100 * estimate.value:+.1f}."
    )
    return Finding.of(f"mlp-{name}-late", "mlp", claim, estimate, "accuracy", evidence=_keys(both), command=command)


def _speed(record: Record, name: str, command: str) -> Finding:
    rounds = record.measured["rounds"]
    ratios = [math.log(one / other) for one, other in zip(rounds[name], rounds["baseline"], strict=True)]
    found = bootstrap_mean(ratios)
    value, low, high = (math.exp(end) for end in (found.value, found.low, found.high))
    estimate = Estimate(value, low, high, found.n)
    claim = f"The {name} model classifies images at {value:.2f} times the baseline's speed on this machine."
    return Finding.of(f"mlp-{name}-speed", "mlp", claim, estimate, "×", evidence=[record.key], command=command)


def _cut_findings(records: Records, margin: float, command: str) -> list[Finding]:
    found = []
    for record in records.where(kind="cut"):
        judged = bool(record.cell.params["trained"]) and bool(record.result["works"])
        intact = record.result["intact"]
        for name, cut in record.result["cuts"].items():
            estimate = accuracy_loss(from_bits(intact["correct"]), from_bits(cut["correct"]), margin)
            removed = 1 - cut["parameters"] / intact["parameters"]
            what = "of accuracy" if record.result["measure"] == "accuracy" else "of agreement with the intact model"
            claim = f"{CUT[name]} removes {removed:.0%} of the parameters and {change(estimate.value)} {what}."
            found.append(
                Finding.of(
                    f"mlp-cut-{name}", "mlp", claim, estimate, "accuracy",
                    margin=margin if judged else None, evidence=[record.key], command=command,
                )
            )  # fmt: skip
    return found


def _mean(both: list[tuple[Record, Record]], side: int) -> float:
    return sum(float(pair[side].result["top1"]) for pair in both) / len(both)


def _keys(both: list[tuple[Record, Record]]) -> list[str]:
    return [record.key for pair in both for record in pair]


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"
