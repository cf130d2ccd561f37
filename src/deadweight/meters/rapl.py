"""RAPL: the energy counters of processors and of the memory beside them, as files below /sys/class/powercap."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deadweight.meters.devices import EnergyDevice, NullEnergy
from deadweight.meters.reading import Provenance

_PERMISSION = (
    "allow reading: sudo chmod -R a+r {root}/*/energy_uj (until the next boot), a udev rule for a group, or run as root"
)


@dataclass(frozen=True)
class RaplEnergy:
    """One RAPL zone: a processor package, or the memory beside it."""

    name: str
    path: Path
    modulus: float | None
    scope: str = "the whole zone, whatever runs on it"
    provenance: Provenance = "measured"
    shortest: float = 0.1  # the counter moves about every millisecond: 1 % of the window
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
    devices: list[EnergyDevice] = []
    for zone in sorted(zone for zone in place.glob("intel-rapl:*") if zone.name.count(":") == 1):
        if _named(zone).startswith("package"):
            package = _zone(rapl, zone, "cpu", place)
            devices.append(package)
            devices += [
                _zone(rapl, inner, f"dram of {package.name}", place)
                for inner in sorted(zone.glob("intel-rapl:*"))
                if _named(inner) == "dram"
            ]
    return devices or [NullEnergy("cpu", f"no package zone in {place}", "load the kernel module intel_rapl_msr")]


def _named(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _zone(rapl: Any, folder: Path, kind: str, root: Path) -> EnergyDevice:
    from zeus.device.cpu.common import ZeusCPUNoPermissionError

    label = f"{kind} {_named(folder)}" if kind == "cpu" else kind
    try:
        zone = rapl.RAPLFile(str(folder))
    except (ZeusCPUNoPermissionError, PermissionError):
        return NullEnergy(label, f"no permission to read {folder}/energy_uj", _PERMISSION.format(root=root))
    except (rapl.ZeusRAPLFileInitError, OSError, ValueError) as error:
        return NullEnergy(label, f"the zone {folder} cannot be read: {error}", "check the kernel's powercap driver")
    # zeus' own read() starts a process a zone to watch for wrap-around; the meter's thread does that here.
    whole = "the memory of that processor" if kind != "cpu" else "the whole processor: cores, caches, its own graphics"
    return RaplEnergy(
        label,
        Path(zone.energy_uj_path),
        float(zone.max_energy_range_uj) / 1e6,
        f"{whole}, whatever process uses it",
        cure=f"check {folder}",
    )
