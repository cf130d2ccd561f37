"""Two runs side by side: which findings moved, by how much and how surely, and which results are the same bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from deadweight.lab.cell import Json, canonical
from deadweight.lab.findings import Finding, Findings
from deadweight.lab.records import Records


@dataclass(frozen=True)
class Change:
    """A finding in both runs. low, high: interval of second − first; None where one of them has none.

    moved: the interval of the difference does not hold 0, or there is none and the estimates differ.
    """

    study: str
    id: str
    unit: str
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdicts: tuple[str | None, str | None]
    moved: bool


@dataclass(frozen=True)
class Comparison:
    """Everything that differs. `differing`: keys of cells both runs have, with the first part of the result that
    differs; `same`: number of cells whose results are equal bit for bit."""

    changes: tuple[Change, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    same: int
    differing: tuple[tuple[str, str], ...]
    cells_only_first: int
    cells_only_second: int

    def as_json(self) -> dict[str, Json]:
        """JSON has no infinity: an end the data cannot bound is null."""
        told = asdict(self)
        for change in told["changes"]:
            for name, value in change.items():
                if isinstance(value, float) and not math.isfinite(value):
                    change[name] = None
        return told


def compare(first: tuple[Records, Findings], second: tuple[Records, Findings]) -> Comparison:
    """What changed from the first run to the second.

    The interval of a difference is Zou and Donner's (2008): with estimates a, b and intervals (a₁, a₂), (b₁, b₂),
    b − a lies between b − a − √((b − b₁)² + (a₂ − a)²) and b − a + √((b₂ − b)² + (a − a₁)²). It takes the runs for
    independent; where both used the same items it is wider than need be.
    """
    ours = {(finding.study, finding.id): finding for finding in first[1]}
    theirs = {(finding.study, finding.id): finding for finding in second[1]}
    changes = [_change(ours[name], theirs[name]) for name in ours if name in theirs]
    mine = {record.key: record.result for record in first[0]}
    other = {record.key: record.result for record in second[0]}
    both = [key for key in mine if key in other]
    differing = [(key, _where(mine[key], other[key])) for key in both if canonical(mine[key]) != canonical(other[key])]
    return Comparison(
        tuple(changes),
        tuple("/".join(name) for name in ours if name not in theirs),
        tuple("/".join(name) for name in theirs if name not in ours),
        len(both) - len(differing),
        tuple(differing),
        len(mine) - len(both),
        len(other) - len(both),
    )


def _change(a: Finding, b: Finding) -> Change:
    low = high = difference = None
    if a.estimate is not None and b.estimate is not None:
        difference = b.estimate - a.estimate
        if None not in (a.low, a.high, b.low, b.high):
            low, high = difference_interval(_interval(a), _interval(b))
    apart = difference not in (None, 0) if low is None or high is None else not low <= 0 <= high
    moved = apart or (a.estimate is None) != (b.estimate is None)
    verdicts = (a.verdict, b.verdict)
    return Change(a.study, a.id, b.unit, a.estimate, b.estimate, difference, low, high, verdicts, moved)


def _interval(finding: Finding) -> tuple[float, float, float]:
    assert finding.estimate is not None
    assert finding.low is not None
    assert finding.high is not None
    return finding.estimate, finding.low, finding.high


def difference_interval(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of b − a from (estimate, low, high) of each, taken as independent."""
    middle = b[0] - a[0]
    return middle - math.hypot(b[0] - b[1], a[2] - a[0]), middle + math.hypot(b[2] - b[0], a[0] - a[1])


def _where(a: Json, b: Json, path: str = "result") -> str:
    """The path of the first difference, depth first."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in [*a, *(name for name in b if name not in a)]:
            if name not in a or name not in b:
                return f"{path}.{name}"
            if canonical(a[name]) != canonical(b[name]):
                return _where(a[name], b[name], f"{path}.{name}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, two) in enumerate(zip(a, b, strict=True)):
            if canonical(one) != canonical(two):
                return _where(one, two, f"{path}[{number}]")
    return path
