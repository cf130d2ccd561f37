"""The cost of a piece of work: time, memory, operations, energy. Every reading says how it was got."""

from deadweight.meters.counters import EnergySource, energy_devices, energy_sources
from deadweight.meters.energy import EnergyDevice, EnergyMeter, ModelledEnergy, NullEnergy, ReplayEnergy
from deadweight.meters.flops import Counts, count
from deadweight.meters.machine import described, machine, machine_peak
from deadweight.meters.measure import Cost, measure
from deadweight.meters.reading import Reading

__all__ = [
    "Cost",
    "Counts",
    "EnergyDevice",
    "EnergyMeter",
    "EnergySource",
    "ModelledEnergy",
    "NullEnergy",
    "Reading",
    "ReplayEnergy",
    "count",
    "described",
    "energy_devices",
    "energy_sources",
    "machine",
    "machine_peak",
    "measure",
]
