"""A reading says how it was got. There is no reading without a provenance, and no number in a missing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from deadweight.errors import InputError

Provenance = Literal["measured", "integrated", "modelled", "missing"]
WEAKEST_FIRST: tuple[Provenance, ...] = ("modelled", "integrated", "measured")
UNIT = "J"


@dataclass(frozen=True)
class Reading:
    """One quantity of a cost.

    value:      in `unit`; None exactly when the provenance is ``missing``, and never 0 in its place.
    provenance: ``measured`` by a counter, ``integrated`` from sampled power, ``modelled`` by the author `reason`
                names, or ``missing``.
    reason:     why it is missing, or what the value does not cover.
    cure:       what to do about it.

    >>> Reading(12.5, "J", "measured").value, Reading.missing("J", "no counter", "run as root").value
    (12.5, None)
    """

    value: float | None
    unit: str
    provenance: Provenance
    reason: str = ""
    cure: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != (self.provenance == "missing"):
            raise InputError(
                f"a reading of {self.value} called {self.provenance}",
                expected="no value exactly where the provenance is missing",
                cure="use Reading.missing(...) for what was not read",
            )

    @classmethod
    def missing(cls, unit: str, reason: str, cure: str = "") -> Reading:
        return cls(None, unit, "missing", reason, cure)

    def as_json(self) -> dict[str, str | float | None]:
        return asdict(self)


def add_up(readings: Mapping[str, Reading]) -> Reading:
    """The total of several devices. The weakest provenance among the read ones is the total's.

    Devices that could not be read leave the total standing, but it says that they are not in it; with none read
    the total is missing.
    """
    read = {name: r for name, r in readings.items() if r.value is not None}
    lost = {name: r for name, r in readings.items() if r.value is None}
    why = "; ".join(f"{name}: {r.reason}" for name, r in lost.items())
    cure = "; ".join(dict.fromkeys(r.cure for r in lost.values() if r.cure))
    if not read:
        return Reading.missing(UNIT, why or "no energy counter was asked for", cure or "pass energy=True")
    weakest = min((r.provenance for r in read.values()), key=WEAKEST_FIRST.index)
    notes = [r.reason for r in read.values() if r.reason]
    if lost:
        notes.append(f"covers {', '.join(read)} only; not included: {why}")
    value = sum(r.value for r in read.values() if r.value is not None)
    return Reading(value, next(iter(read.values())).unit, weakest, "; ".join(notes), cure)
