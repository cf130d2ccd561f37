"""Findings as the page shows them: one card each, and the few that a reader in a hurry must see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deadweight.report.parts import Action
from deadweight.report.sureness import is_interval, is_number, sureness
from deadweight.report.wording import interval, number, quantity, verdict_name

ORDER: tuple[str | None, ...] = ("dead weight", "needed", "undecided", None)
EACH = 2  # findings of a study's dead weight that stand at the top
_MEANINGS: dict[str | None, str] = {
    "dead weight": "can go: the loss is surely within what we accept",
    "needed": "must stay: removing it surely costs more",
    "undecided": "the data do not settle it yet",
    None: "costs and descriptions; nothing to remove",
}
WIDTH = 320.0


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
    sure: str
    what: str
    estimate: str
    interval: str
    interval_name: str
    covers: bool
    n: str
    action: str
    command: str
    again: str
    evidence: int
    bar: Bar | None
    order: float


@dataclass(frozen=True)
class Count:
    """How many findings got a verdict, and what it means."""

    tone: str
    name: str
    meaning: str
    count: int


def cards_of(findings: Sequence[Mapping[str, Any]], actions: Mapping[str, Action] | None = None) -> list[Card]:
    """Every finding as a card, in the order given; `actions` by the finding's id."""
    return [card(finding, index, (actions or {}).get(str(finding["id"]))) for index, finding in enumerate(findings)]


def counts(findings: Sequence[Mapping[str, Any]]) -> list[Count]:
    """The findings counted by verdict, in the order a reader needs them; verdicts nothing got are left out."""
    found = {verdict: sum(f.get("verdict") == verdict for f in findings) for verdict in ORDER}
    return [Count(tone(v), verdict_name(v), _MEANINGS[v], found[v]) for v in ORDER if found[v]]


def headlines(findings: Sequence[Mapping[str, Any]], cards: Sequence[Card]) -> list[Card]:
    """What must be seen first: of each study its dead weight and its most needed part, else the best it has.

    Dead weight comes first, surest (lowest upper end) first, `EACH` a study; then a needed part a study, the one
    whose removal costs most. A study with neither shows its first undecided finding, or its first measurement.
    """
    rows = [(f.get("verdict"), _end(f, 1), _end(f, 0), c) for f, c in zip(findings, cards, strict=True)]
    chosen: list[tuple[int, Card]] = []
    for study in dict.fromkeys(card.study for card in cards):
        mine = [row for row in rows if row[3].study == study]
        dead = sorted((row for row in mine if row[0] == "dead weight"), key=lambda row: row[1])[:EACH]
        needed = sorted((row for row in mine if row[0] == "needed"), key=lambda row: -row[2])[:1]
        rest = [row for verdict in ("undecided", None) for row in mine if row[0] == verdict][:1]
        chosen += [(ORDER.index(verdict), card) for verdict, *_, card in dead + needed or rest]
    return [card for _, card in sorted(chosen, key=lambda item: item[0])]


def _end(finding: Mapping[str, Any], which: int) -> float:
    end: float | None = (finding.get("interval") or (None, None))[which]
    return float(end) if is_number(end) else float("-inf" if which == 0 else "inf")


def card(finding: Mapping[str, Any], index: int, action: Action | None = None) -> Card:
    """One object of ``findings.json`` as a card; `index` makes its anchor unique."""
    unit = str(finding.get("unit") or "")
    return Card(
        id=str(finding["id"]),
        anchor=f"finding-{index + 1}",
        study=str(finding["study"]),
        claim=str(finding["claim"]),
        tone=tone(finding.get("verdict")),
        verdict=verdict_name(finding.get("verdict")),
        sure=sureness(finding),
        what="Estimate" if finding.get("verdict") is None else "Loss if removed",
        estimate=quantity(finding.get("estimate"), unit),
        interval=_interval(finding, unit),
        interval_name=str(finding.get("label") or "95 % interval"),
        covers=is_interval(finding),
        n="" if finding.get("n") is None else number(finding["n"]),
        action=action.sentence if action else "",
        command=action.command if action else "",
        again=str(finding.get("command") or ""),
        evidence=len(finding.get("evidence") or ()),
        bar=_bar(finding, _bounds(finding), unit),
        order=float(finding["estimate"]) if is_number(finding.get("estimate")) else float("-inf"),
    )


def tone(verdict: str | None) -> str:
    """The class name that carries the verdict's colour."""
    return "measured" if verdict is None else verdict.replace(" ", "-")


def _interval(finding: Mapping[str, Any], unit: str) -> str:
    low, high = finding.get("interval") or (None, None)
    if is_number(low) and is_number(high):
        return interval(low, high, unit)
    if is_number(low):
        return f"at least {quantity(low, unit)}"
    return f"at most {quantity(high, unit)}" if is_number(high) else ""


def has_interval(finding: Mapping[str, Any]) -> bool:
    """Whether the finding has an estimate and both ends of an interval that covers: enough to be compared."""
    return _bounds(finding) is not None and is_number(finding.get("estimate")) and is_interval(finding)


def _bounds(finding: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = finding.get("interval") or (None, None)
    if not (is_number(low) and is_number(high)):
        return None
    return float(low), float(high)


def _bar(finding: Mapping[str, Any], bounds: tuple[float, float] | None, unit: str) -> Bar | None:
    estimate, margin = finding.get("estimate"), finding.get("margin")
    if bounds is None or not is_number(estimate):
        return None
    if finding.get("verdict") is None:
        margin = None
    shown = [*bounds, float(estimate), *([] if margin is None else [0.0, float(margin)])]
    least, span = min(shown), (max(shown) - min(shown)) or 1.0

    def place(value: float) -> float:
        return round(14 + (WIDTH - 28) * (value - least) / span, 1)

    where = place(margin) if margin is not None else 0.0
    name = "interval" if is_interval(finding) else str(finding["label"])
    words = f"estimate {quantity(estimate, unit)}, {name} {interval(*bounds, unit)}"
    return Bar(
        low=place(bounds[0]),
        high=max(place(bounds[1]), place(bounds[0]) + 0.5),
        estimate=place(float(estimate)),
        zero=None if margin is None else place(0.0),
        margin=None if margin is None else where,
        margin_text="" if margin is None else f"accepted: {quantity(margin, unit)}",
        margin_anchor="start" if where < WIDTH / 3 else "end" if where > WIDTH * 2 / 3 else "middle",
        label=words if margin is None else f"{words}, accepted loss {quantity(margin, unit)}",
    )


__all__ = ["Bar", "Card", "Count", "card", "cards_of", "counts", "has_interval", "headlines", "tone"]
