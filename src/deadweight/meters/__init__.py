"""The cost of a piece of work: time, memory, operations, energy. Every reading says how it was got."""

from deadweight.meters.carbon import carbon
from deadweight.meters.counters import (
    EnergySource,
    charge_once,
    energy_devices,
    energy_sources,
    idle_power,
    of_this_machine,
)
from deadweight.meters.devices import EnergyDevice, ModelledEnergy, NullEnergy, PoweredDevice, ReplayEnergy
from deadweight.meters.energy import EnergyMeter
from deadweight.meters.flops import Counts, count
from deadweight.meters.idle import IdlePower
from deadweight.meters.machine import described, machine, machine_peak
from deadweight.meters.measure import Cost, measure
from deadweight.meters.reading import Reading
from deadweight.meters.repeated import RepeatedCost, measure_repeated

__all__ = [
    "Cost",
    "Counts",
    "EnergyDevice",
    "EnergyMeter",
    "EnergySource",
    "IdlePower",
    "ModelledEnergy",
    "NullEnergy",
    "PoweredDevice",
    "Reading",
    "RepeatedCost",
    "ReplayEnergy",
    "carbon",
    "charge_once",
    "count",
    "described",
    "energy_devices",
    "energy_sources",
    "idle_power",
    "machine",
    "machine_peak",
    "measure",
    "measure_repeated",
    "of_this_machine",
]
