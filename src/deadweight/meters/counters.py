"""The energy counters of this machine, and what to do about those that cannot be read."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deadweight.meters.devices import EnergyDevice, NullEnergy
from deadweight.meters.energy import EnergyMeter
from deadweight.meters.gpus import chip_devices, gpu_devices
from deadweight.meters.idle import IdlePower, checked_seconds, rest, watts
from deadweight.meters.rapl import rapl_devices
from deadweight.meters.reading import Provenance, Reading

ELSEWHERE = "charged elsewhere"
LOCAL_RANKS = (  # where launchers tell a process its number on its machine
    "LOCAL_RANK",  # torchrun, accelerate, deepspeed
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_LOCAL_RANK",  # Open MPI
    "MPI_LOCALRANKID",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_LOCAL_RANK",  # MVAPICH
    "PALS_LOCAL_RANKID",  # HPE
    "JSM_NAMESPACE_LOCAL_RANK",  # IBM
    "FLUX_TASK_LOCAL_ID",
)


@dataclass(frozen=True)
class EnergySource:
    """A row of ``deadweight doctor``."""

    name: str
    available: bool
    provenance: Provenance
    reason: str
    cure: str


def energy_sources() -> list[EnergySource]:
    """What this machine can measure, and what to do about what it cannot."""
    return [
        EnergySource(d.name, d.provenance != "missing", d.provenance, d.reason, d.cure) for d in energy_devices()
    ]  # fmt: skip


def energy_devices() -> list[EnergyDevice]:
    """Every counter of this machine; what is missing is there as a :class:`NullEnergy` that says why.

    Counters run for the machine, not for a process. Of the processes a launcher starts on one machine (torchrun,
    accelerate, srun, mpirun: :data:`LOCAL_RANKS`) the first reads them all, and the others are told so: nothing is
    charged twice.

    >>> {device.provenance in ("measured", "integrated", "missing") for device in energy_devices()}
    {True}
    """
    # One launcher may have started another: the first process of a machine is the first to all of them.
    rank = next((told for name in LOCAL_RANKS if (told := os.environ.get(name, "0").strip()) not in ("", "0")), None)
    if rank is not None:
        return [
            NullEnergy(
                ELSEWHERE,
                f"this is process {rank} of its machine; process 0 reads the counters for all",
                "read the energy of local rank 0, and add up machines with charge_once",
            )
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zeus warns about privileges that reading does not need
        chip = chip_devices()
        if chip:
            return chip
        return [*rapl_devices(), *gpu_devices()]


def idle_power(devices: Sequence[EnergyDevice] | None = None, *, seconds: float = 5.0) -> IdlePower:
    """Watts at rest, over `seconds` in which this process does nothing. See that nothing else runs either.

    Without a readable device it does not wait: every reading is missing, with the device's reason.

    >>> import deadweight as dw
    >>> idle_power([dw.ReplayEnergy([0.0, 5.0])], seconds=0.01).watts["replay"].unit
    'W'
    """
    found = list(energy_devices() if devices is None else devices)
    if all(device.provenance == "missing" for device in found):
        return IdlePower({d.name: Reading.missing("W", d.reason, d.cure) for d in found}, 0.0)
    window = max(checked_seconds(seconds), *(device.shortest for device in found))
    meter = EnergyMeter(found)
    meter.start()
    rest(window)
    meter.stop()
    return IdlePower({n: watts(energy, meter.seconds) for n, energy in meter.readings().items()}, meter.seconds)


def of_this_machine(readings: Mapping[str, Reading]) -> dict[str, Reading]:
    """The readings under names that hold among machines, for :func:`charge_once`."""
    return {f"{socket.gethostname()}: {name}": reading for name, reading in readings.items()}


def charge_once(processes: Sequence[Mapping[str, Reading]]) -> dict[str, Reading]:
    """One reading a device from those of several processes (:func:`of_this_machine` of each, gathered).

    A device that several have read is charged once, with the largest reading: that of the longest window. One that
    nobody could read stays missing.
    """
    charged: dict[str, Reading] = {}
    for readings in processes:
        for name, reading in readings.items():
            if name.endswith(ELSEWHERE):
                continue
            known = charged.get(name)
            if known is None or known.value is None or (reading.value or 0.0) > known.value:
                charged[name] = reading
    return charged
