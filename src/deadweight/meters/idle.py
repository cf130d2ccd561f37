"""Power at rest: measured before the work, kept, and taken from what the work used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deadweight.errors import InputError
from deadweight.meters.reading import WEAKEST_FIRST, Reading, add_up

POWER = "W"


@dataclass(frozen=True)
class IdlePower:
    """Watts of each device while nothing of ours ran, over so many `seconds`."""

    watts: Mapping[str, Reading] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def total(self) -> Reading:
        """Watts of all devices that were read."""
        found = add_up(self.watts)
        return found if found.value is not None else replace(found, unit=POWER)

    def taken_from(self, readings: Mapping[str, Reading], seconds: float) -> dict[str, Reading]:
        """Joules above rest, device by device: reading − idle watts · `seconds`. The weaker provenance of the two."""
        return {name: self._above(name, reading, seconds) for name, reading in readings.items()}

    def _above(self, name: str, reading: Reading, seconds: float) -> Reading:
        if reading.value is None:
            return reading
        rest = self.watts.get(name)
        if rest is None or rest.value is None:
            why = "was not measured" if rest is None else rest.reason
            return Reading.missing(reading.unit, f"power at rest: {why}", "" if rest is None else rest.cure)
        weaker = min(reading.provenance, rest.provenance, key=WEAKEST_FIRST.index)
        return Reading(reading.value - rest.value * seconds, reading.unit, weaker, reading.reason, reading.cure)

    def as_json(self) -> dict[str, object]:
        return {"watts": self.total.as_json(), "seconds": self.seconds}


def watts(energy: Reading, seconds: float) -> Reading:
    """Mean power of an energy over `seconds`, its provenance kept."""
    return replace(energy, value=None if energy.value is None else energy.value / seconds, unit=POWER)


def checked_seconds(seconds: float) -> float:
    """Refuses windows of no length."""
    if not seconds > 0:
        raise InputError(f"seconds {seconds}", expected="seconds > 0", cure="5 to 30 are usual")
    return seconds


def rest(seconds: float) -> None:
    """Do nothing, which is what is measured."""
    time.sleep(seconds)
