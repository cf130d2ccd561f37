"""The energy counters of this machine, found through zeus, and what to do about those that cannot be read."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deadweight.meters.energy import EnergyDevice, NullEnergy
from deadweight.meters.reading import Provenance

_PERMISSION = (
    "allow reading: sudo chmod -R a+r {root}/*/energy_uj (until the next boot), a udev rule for a group, or run as root"
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
    """Every counter of this machine; what is missing is there as a :class:`NullEnergy` that says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zeus warns about privileges that reading does not need
        return [*rapl_devices(), *gpu_devices()]


@dataclass(frozen=True)
class RaplEnergy:
    """One RAPL zone: a processor package, or the memory beside it."""

    name: str
    path: Path
    modulus: float | None
    provenance: Provenance = "measured"
    shortest: float = 0.01  # the counter moves about every millisecond
    reason: str = ""
    cure: str = ""

    def joules(self) -> float | None:
        try:
            return float(self.path.read_text()) / 1e6
        except (OSError, ValueError):
            return None


def rapl_devices(root: str | os.PathLike[str] | None = None) -> list[EnergyDevice]:
    """Processor packages and their memory. Zones inside a package (cores, uncore) and the platform zone that
    holds all packages are left out: their joules are in those already.

    Parameters
    ----------
    root: the powercap folder; None asks zeus where it is, inside a container too.
    """
    from zeus.device.cpu import rapl

    places = [Path(root)] if root is not None else [Path(rapl.RAPL_DIR), Path(rapl.CONTAINER_RAPL_DIR)]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        return [
            NullEnergy(
                "cpu",
                "this machine shows no RAPL counter (none in the processor, or hidden by a virtual machine)",
                "measure on bare-metal Linux with an Intel or AMD processor, or give a power model",
            )
        ]
    zones = sorted(zone for zone in place.glob("intel-rapl:*") if zone.name.count(":") == 1)
    devices: list[EnergyDevice] = []
    for zone in zones:
        if (zone / "name").read_text().strip().startswith("package"):
            package = _zone(rapl, zone, "cpu", place)
            devices.append(package)
            devices += [
                _zone(rapl, inner, f"dram of {package.name}", place)
                for inner in sorted(zone.glob("intel-rapl:*"))
                if (inner / "name").read_text().strip() == "dram"
            ]
    return devices or [NullEnergy("cpu", f"no package zone in {place}", "load the kernel module intel_rapl_msr")]


def _zone(rapl: Any, folder: Path, scope: str, root: Path) -> EnergyDevice:
    from zeus.device.cpu.common import ZeusCPUNoPermissionError

    label = f"{scope} {(folder / 'name').read_text().strip()}" if scope == "cpu" else scope
    try:
        zone = rapl.RAPLFile(str(folder))
    except (ZeusCPUNoPermissionError, PermissionError):
        return NullEnergy(label, f"no permission to read {folder}/energy_uj", _PERMISSION.format(root=root))
    except (rapl.ZeusRAPLFileInitError, OSError, ValueError) as error:
        return NullEnergy(label, f"the zone {folder} cannot be read: {error}", "check the kernel's powercap driver")
    # zeus' own read() starts a process a zone to watch for wrap-around; the meter's thread does that here.
    return RaplEnergy(label, Path(zone.energy_uj_path), float(zone.max_energy_range_uj) / 1e6)


@dataclass(frozen=True)
class GpuEnergy:
    """The energy counter of one GPU, whatever process uses it."""

    name: str
    gpu: Any
    provenance: Provenance = "measured"
    modulus: float | None = None
    shortest: float = 0.2  # the drivers refresh it every 20 to 100 milliseconds
    reason: str = ""
    cure: str = ""

    def joules(self) -> float | None:
        from zeus.device.exception import ZeusBaseGPUError

        try:
            return float(self.gpu.get_total_energy_consumption()) / 1e3
        except (ZeusBaseGPUError, OSError):
            return None


def gpu_devices() -> list[EnergyDevice]:
    """The GPUs this process may see, in the order of their index."""
    from zeus.device.exception import ZeusBaseGPUError
    from zeus.device.gpu import get_gpus

    try:
        gpus = list(get_gpus().gpus)
    except ZeusBaseGPUError as error:
        return [
            NullEnergy(
                "gpu",
                f"no GPU counter: {error}",
                "nothing to do without a GPU; with one, install its driver and nvidia-ml-py or amdsmi",
            )
        ]
    return [_gpu(index, gpu) for index, gpu in enumerate(gpus)]


def _gpu(index: int, gpu: Any) -> EnergyDevice:
    if gpu.supports_get_total_energy_consumption():
        return GpuEnergy(f"gpu {index}", gpu)
    return NullEnergy(
        f"gpu {index}",
        f"{gpu.get_name()} has no energy counter (NVIDIA: Volta and later have one)",
        "measure on a newer GPU, or give a power model",
    )
