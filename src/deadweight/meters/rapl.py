"""RAPL: the energy counters of processors and of the memory beside them, as files below /sys/class/powercap."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deadweight.meters.devices import EnergyDevice, NullEnergy
from deadweight.meters.reading import Provenance

_PERMISSION = (
    "allow reading: sudo chmod -R a+r {root}/*/energy_uj (until the next boot), a udev rule for a group, or run as root"
)

_STILL = 0.02  # seconds; a counter of a running processor moves every one or two milliseconds


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
    holds all packages are left out: their joules are in those already. So is a zone that shows the counter of
    another one.

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
                if _named(inner).startswith("dram")
            ]
    devices = _named_apart(_once(devices))
    return devices or [NullEnergy("cpu", f"no package zone in {place}", "load the kernel module intel_rapl_msr")]


def _once(devices: list[EnergyDevice]) -> list[EnergyDevice]:
    """Without zones that show another one's counter, as some processors do for each of their dies."""
    kept: list[EnergyDevice] = []
    for device in devices:
        first = next((one for one in kept if _same_counter(one, device)), None)
        if first is None:
            kept.append(device)
        elif isinstance(first, RaplEnergy):
            scope = f"{first.scope}; {device.name} shows the same counter and is not charged again"
            kept[kept.index(first)] = replace(first, scope=scope)
    return kept


def _same_counter(first: EnergyDevice, second: EnergyDevice) -> bool:
    """Read between two looks at the first, the second lies between them, before the first has moved and after.

    Counters of their own are far apart. Dies of one package are known to show one counter; of different packages that
    is believed only where the counter was seen to move.
    """
    package = first.name.partition("-die-")[0]
    moved = package != first.name and package == second.name.partition("-die-")[0]
    began, start = time.monotonic(), first.joules()
    while _between(first, second):
        if moved or first.joules() != start:
            return _between(first, second)
        if time.monotonic() - began > _STILL:
            return False
        time.sleep(_STILL / 20)
    return False


def _between(first: EnergyDevice, second: EnergyDevice) -> bool:
    before, there, after = first.joules(), second.joules(), first.joules()
    return None not in (before, there, after) and bool(there) and before <= there <= after  # type: ignore[operator]


def _named_apart(devices: list[EnergyDevice]) -> list[EnergyDevice]:
    """Zones of one name by their folders as well."""
    names = [device.name for device in devices]
    return [
        replace(device, name=f"{device.name} ({device.path.parent.name})")
        if isinstance(device, RaplEnergy) and names.count(device.name) > 1
        else device
        for device in devices
    ]


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
        float(zone.max_energy_range_uj) / 1e6 or None,  # 0 where the kernel could not tell
        f"{whole}, whatever process uses it",
        cure=f"check {folder}",
    )
