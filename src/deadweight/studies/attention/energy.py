"""The least energy where it was read; else that it was not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from deadweight.lab import Record, Records
from deadweight.meters import Reading, carbon
from deadweight.statistics import Estimate
from deadweight.studies.attention.names import named
from deadweight.studies.attention.records import layers
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.quantity import JOULES
from deadweight.studies.frame.remedy import Remedy

_ENOUGH = 6  # metered rounds before there is an interval


class Energy(Derived):
    """Joules of a training step of a layer at the longest length, from the metered rounds."""

    kind: ClassVar[str] = "energy"

    def __init__(self, carbon_intensity: float | None = None) -> None:
        self.carbon_intensity = carbon_intensity  # grams of CO2 equivalent per kWh, if the user knows it

    def effects(self, records: Records, margin: float) -> list[Effect]:
        timed = layers(records)
        return _effects(timed[-1], self.carbon_intensity) if timed else []


def _effects(record: Record, intensity: float | None) -> list[Effect]:
    readings = {
        name: found["metered"]["energy"] for name, found in record.measured["mechanisms"].items() if found["metered"]
    }
    if not readings:
        return []
    known = {name: reading for name, reading in readings.items() if reading["value"] is not None}
    if not known:
        reading = next(iter(readings.values()))
        statement = (
            f"Energy was not measured: {reading['reason'].rstrip('.')}. `deadweight doctor` says what can be done."
        )
        estimate = Estimate(float("nan"), None, None, 0, None, 0.0, "not measured")
        remedy = Remedy("", "doctor", {}, "See what would let this machine read its energy.")
        return [Effect("energy", "", "", JOULES, estimate, remedy=remedy, evidence=(record.key,), statement=statement)]
    name = min(known, key=lambda one: float(known[one]["value"]))
    estimate = energy_estimate(known[name])
    statement = (
        f"At {record.cell.params['length']:,} tokens {named(name)} takes the least energy, {estimate.value:.3g} J per "
        f"layer forward and backward ({known[name]['provenance']}{_carbon(known[name], intensity)})."
    )
    return [Effect("energy", "", "", JOULES, estimate, evidence=(record.key,), statement=statement)]


def energy_estimate(reading: Mapping[str, Any]) -> Estimate:
    """The median over metered rounds; below six of them low and high are their range, of one there are none."""
    n, value = int(reading.get("n") or 1), float(reading["value"])
    if n == 1:
        return Estimate(value, None, None, 1, None, 0.0, "one measurement")
    label = str(reading.get("label") or (f"range of {n} rounds" if n < _ENOUGH else "95 % interval"))
    level = float(reading.get("level", 0.0 if n < _ENOUGH else 0.95))
    return Estimate(value, reading.get("low"), reading.get("high"), n, None, level, label)


def _carbon(reading: Mapping[str, Any], intensity: float | None) -> str:
    if intensity is None:
        return ""
    found = Reading(reading["value"], "J", reading["provenance"])
    grams = carbon(found, intensity, source="the user of this study")
    return f"; {grams.value:.2g} g CO2e at the {intensity:g} g/kWh given"


__all__ = ["Energy", "energy_estimate"]
