"""Carbon: only ever from an intensity somebody gives and answers for."""

from __future__ import annotations

from deadweight.errors import InputError
from deadweight.meters.reading import Reading

JOULES_A_KWH = 3.6e6


def carbon(energy: Reading, grams_per_kwh: float, *, source: str) -> Reading:
    """Grams of CO₂ equivalent for an energy in joules: J / 3.6e6 · intensity.

    The result is ``modelled``, whatever the energy's own provenance, for the intensity is an assumption; a missing
    energy gives missing carbon. No intensity is looked up or guessed: `source` says whose figure it is.

    >>> carbon(Reading(3.6e6, "J", "measured"), 50.0, source="my supplier").value  # one kWh at 50 g per kWh
    50.0
    """
    if energy.unit != "J" or grams_per_kwh <= 0 or not source.strip():
        raise InputError(
            f"carbon of a reading in {energy.unit} at {grams_per_kwh} g/kWh from {source!r}",
            expected="joules, an intensity > 0, and whose figure it is",
            cure='carbon(cost.energy, 56, source="the operator of the grid, 2025")',
        )
    if energy.value is None:
        return Reading.missing("g CO2e", energy.reason, energy.cure)
    why = f"{grams_per_kwh:g} g/kWh given by {source}; energy {energy.provenance}"
    told = f"{why}; {energy.reason}" if energy.reason else why
    return Reading(energy.value / JOULES_A_KWH * grams_per_kwh, "g CO2e", "modelled", told, energy.cure)
