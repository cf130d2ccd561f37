"""Findings as the page shows them: one card each, ordered by what they mean for the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeGuard

from deadweight.report.wording import interval, number, quantity, verdict_name

ORDER: tuple[str | None, ...] = ("dead weight", "needed", "undecided", None)
_TITLES: dict[str | None, tuple[str, str]] = {
    "dead weight": ("What is dead weight", "Removing this costs less than the margin, with the whole interval."),
    "needed": ("What is needed", "Removing this costs more than the margin, with the whole interval."),
    "undecided": ("What is undecided", "The interval does not clear the margin: more seeds or items would settle it."),
    None: ("What was measured", "Measurements and rankings. No verdict is given where nothing is removed."),
}
WIDTH, MIDDLE = 320.0, 17.0


@dataclass(frozen=True)
class Bar:
    """The drawing of an interval, in the user units of an SVG `WIDTH` wide; margin is None where there is none."""

    low: float
    high: float
    estimate: float
    zero: float | None
    margin: float | None
    margin_text: str
    margin_anchor: str
    label: str


@dataclass(frozen=True)
class Card:
    """A finding in words."""

    id: str
    anchor: str
    study: str
    claim: str
    tone: str
    verdict: str
    estimate: str
    interval: str
    level: str
    n: str
    command: str
    evidence: int
    bar: Bar | None


@dataclass(frozen=True)
class Group:
    """All findings of one verdict."""

    tone: str
    name: str
    title: str
    lead: str
    cards: tuple[Card, ...]


def groups(findings: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The findings by verdict, in the order a reader needs them; within a group in the order given."""
    cards = [(finding.get("verdict"), card(finding, index)) for index, finding in enumerate(findings)]
    return [
        Group(tone(verdict), verdict_name(verdict), *_TITLES[verdict], cards=members)
        for verdict in ORDER
        if (members := tuple(c for v, c in cards if v == verdict))
    ]


def card(finding: Mapping[str, Any], index: int) -> Card:
    """One object of ``findings.json`` as a card; `index` makes its anchor unique."""
    unit = str(finding.get("unit") or "")
    bounds = _bounds(finding)
    return Card(
        id=str(finding["id"]),
        anchor=f"finding-{index + 1}",
        study=str(finding["study"]),
        claim=str(finding["claim"]),
        tone=tone(finding.get("verdict")),
        verdict=verdict_name(finding.get("verdict")),
        estimate=quantity(finding.get("estimate"), unit),
        interval=_interval(finding, unit),
        level=f"{100 * float(finding.get('level') or 0.95):g} %",
        n="" if finding.get("n") is None else number(finding["n"]),
        command=str(finding.get("command") or ""),
        evidence=len(finding.get("evidence") or ()),
        bar=_bar(finding, bounds, unit),
    )


def tone(verdict: str | None) -> str:
    """The class name that carries the verdict's colour."""
    return "measured" if verdict is None else verdict.replace(" ", "-")


def _interval(finding: Mapping[str, Any], unit: str) -> str:
    low, high = finding.get("interval") or (None, None)
    if _is_number(low) and _is_number(high):
        return interval(low, high, unit)
    if _is_number(low):
        return f"at least {quantity(low, unit)}"
    return f"at most {quantity(high, unit)}" if _is_number(high) else ""


def has_interval(finding: Mapping[str, Any]) -> bool:
    """Whether the finding has an estimate and both ends of an interval: enough to be drawn."""
    return _bounds(finding) is not None and _is_number(finding.get("estimate"))


def _is_number(value: Any) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def _bounds(finding: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = finding.get("interval") or (None, None)
    if not (_is_number(low) and _is_number(high)):
        return None
    return float(low), float(high)


def _bar(finding: Mapping[str, Any], bounds: tuple[float, float] | None, unit: str) -> Bar | None:
    estimate, margin = finding.get("estimate"), finding.get("margin")
    if bounds is None or not _is_number(estimate):
        return None
    if finding.get("verdict") is None:
        margin = None
    shown = [*bounds, float(estimate), *([] if margin is None else [0.0, float(margin)])]
    least, span = min(shown), (max(shown) - min(shown)) or 1.0

    def place(value: float) -> float:
        return round(14 + (WIDTH - 28) * (value - least) / span, 1)

    where = place(margin) if margin is not None else 0.0
    words = f"estimate {quantity(estimate, unit)}, interval {interval(*bounds, unit)}"
    return Bar(
        low=place(bounds[0]),
        high=max(place(bounds[1]), place(bounds[0]) + 0.5),
        estimate=place(float(estimate)),
        zero=None if margin is None else place(0.0),
        margin=None if margin is None else where,
        margin_text="" if margin is None else f"margin {quantity(margin, unit)}",
        margin_anchor="start" if where < WIDTH / 3 else "end" if where > WIDTH * 2 / 3 else "middle",
        label=words if margin is None else f"{words}, margin {quantity(margin, unit)}",
    )


__all__ = ["Bar", "Card", "Group", "card", "groups", "has_interval", "tone"]
