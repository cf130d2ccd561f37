"""How sure a finding is, as a sentence for somebody who has never seen an interval."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeGuard

from deadweight.report.wording import interval, quantity


def is_number(value: Any) -> TypeGuard[float]:
    """Whether an end or an estimate is there: not null, not infinite."""
    return value is not None and isfinite(value)


def is_interval(finding: Mapping[str, Any]) -> bool:
    """Whether low to high is an interval that covers the true value, and not only the range of a few repetitions."""
    return float(finding.get("level", 0.95)) > 0


def sureness(finding: Mapping[str, Any]) -> str:
    """What the interval says about the verdict, in words; empty where there is nothing to say."""
    unit = str(finding.get("unit") or "")
    low, high = finding.get("interval") or (None, None)
    if not is_interval(finding):
        return _repetitions(finding, low, high, unit)
    if not (is_number(low) and is_number(high)):
        return _without_both_ends(low, high, unit)
    level, margin = f"{100 * float(finding.get('level', 0.95)):g} %", finding.get("margin")
    verdict = finding.get("verdict")
    if verdict is None or margin is None:
        return f"With {level} confidence the true value lies between {interval(low, high, unit, joint=' and ')}."
    accepted = quantity(margin, unit)
    if verdict == "dead weight":
        if high < 0:
            return f"Sure: with {level} confidence removing it gains at least {quantity(-high, unit)}."
        return f"Sure: with {level} confidence the loss is at most {quantity(high, unit)}; we accept {accepted}."
    if verdict == "needed":
        return (
            f"Sure: with {level} confidence removing it costs {interval(low, high, unit)}; even the least of "
            f"it is more than the {accepted} we accept."
        )
    if low < margin < high:
        return (
            f"Not sure yet: with {level} confidence it may be anything from {loss(low, unit)} to {loss(high, unit)}, "
            f"and we accept {accepted}."
        )
    return (
        f"Not sure yet: alone, {loss(low, unit)} to {loss(high, unit)} would settle it, but among so many findings one "
        "like it may be chance."
    )


def loss(value: float, unit: str) -> str:
    """A loss from removal in words: below zero it is a gain."""
    said = quantity(abs(value), unit)
    return "no loss" if value == 0 else f"a {'loss' if value > 0 else 'gain'} of {said}"


def _repetitions(finding: Mapping[str, Any], low: Any, high: Any, unit: str) -> str:
    """Of too few repetitions for an interval: what they were, and that this is no statement about others."""
    label = str(finding["label"])
    label = label[:1].upper() + label[1:]
    if is_number(low) and is_number(high):
        return f"{label}: {interval(low, high, unit)}; too few for an interval."
    return f"{label}: too little for an interval."


def _without_both_ends(low: Any, high: Any, unit: str) -> str:
    if is_number(low):
        return f"The data bound it on one side only: at least {quantity(low, unit)}."
    return f"The data bound it on one side only: at most {quantity(high, unit)}." if is_number(high) else ""


__all__ = ["is_interval", "is_number", "loss", "sureness"]
