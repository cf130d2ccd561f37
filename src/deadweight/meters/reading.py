"""A reading says how it was got. There is no reading without a provenance, and no number in a missing one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from deadweight.errors import InputError

Provenance = Literal["measured", "integrated", "modelled", "missing"]


@dataclass(frozen=True)
class Reading:
    """One quantity of a cost.

    value:      in `unit`; None exactly when the provenance is ``missing``, and never 0 in its place.
    provenance: ``measured`` by a counter, ``integrated`` from sampled power, ``modelled`` by the author `reason`
                names, or ``missing``.
    reason:     why it is missing, or what the value does not cover.
    cure:       what to do about it.
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
