"""Energy from the machine's own counters, each reading with its provenance; no number is ever invented.

Counters are found through zeus (RAPL for processors and their memory, NVML and AMD SMI for GPUs), which reports a
machine without any as 0 J; here such a machine's energy is missing, with the reason and the cure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deadweight.errors import InputError
from deadweight.meters.reading import Provenance, Reading

UNIT = "J"
POLL = 5.0  # seconds; a counter must be read at least once a turn to see that it wrapped around


class EnergyDevice(Protocol):
    """A counter of joules.

    name:       e.g. ``cpu package-0``.
    provenance: how the counter is got; ``missing`` where there is none.
    modulus:    joules after which it starts again from 0, None if it never does.
    shortest:   seconds of the shortest window its resolution supports.
    reason, cure: why it is missing (or who modelled it), and what to do about that.
    """

    @property
    def name(self) -> str: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def modulus(self) -> float | None: ...
    @property
    def shortest(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def cure(self) -> str: ...

    def joules(self) -> float | None:
        """The counter now; None when it cannot be read."""


@dataclass(frozen=True)
class NullEnergy:
    """A device that is not there, or may not be read: its energy is missing."""

    name: str = "null"
    reason: str = "no energy counter"
    cure: str = "measure on a machine with RAPL or NVML counters, or give a power model"
    provenance: Provenance = "missing"
    modulus: float | None = None
    shortest: float = 0.0

    def joules(self) -> float | None:
        return None


class ReplayEnergy:
    """A counter that plays back `values` (joules), one a read, then stays at the last: for tests and rehearsals."""

    shortest = 0.0
    reason = cure = ""
    provenance: Provenance = "measured"

    def __init__(self, values: Sequence[float], *, modulus: float | None = None, name: str = "replay") -> None:
        if not values:
            raise InputError("no values to replay", expected="at least one counter value", cure="give the readings")
        self.name, self.modulus = name, modulus
        self._values, self._next = list(values), 0

    def joules(self) -> float | None:
        value = self._values[min(self._next, len(self._values) - 1)]
        self._next += 1
        return value


@dataclass(frozen=True)
class ModelledEnergy:
    """Constant `watts` that the user vouches for; its readings say *modelled*, and by whom."""

    watts: float
    author: str
    name: str = "model"
    cure: str = ""
    provenance: Provenance = "modelled"
    modulus: float | None = None
    shortest: float = 0.0

    @property
    def reason(self) -> str:
        return f"{self.watts:g} W assumed by {self.author}"

    def joules(self) -> float | None:
        return self.watts * time.perf_counter()


class _Track:
    """One device's joules since its first read, whole turns of its counter included."""

    def __init__(self, device: EnergyDevice) -> None:
        self.device, self.total, self.fault = device, 0.0, ""
        self._last = device.joules()

    def advance(self) -> None:
        now = self.device.joules()
        if now is None or self._last is None:
            self.fault = self.fault or self.device.reason or "the counter could not be read"
            return
        step = now - self._last
        if step < 0:
            if self.device.modulus is None:
                self.fault = "the counter went backwards"
                return
            step += self.device.modulus
        self.total += step
        self._last = now


class EnergyMeter:
    """Joules of several devices between `start` and `stop`, one :class:`Reading` each and one in total."""

    def __init__(self, devices: Sequence[EnergyDevice]) -> None:
        names = [device.name for device in devices]
        if len(set(names)) < len(names):
            raise InputError(f"energy devices {names}", expected="a name each", cure="charge each device once")
        self.devices = list(devices)

    def start(self) -> None:
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._tracks = [_Track(device) for device in self.devices]
        self._start = time.perf_counter()
        self._thread: threading.Thread | None = None
        if any(device.modulus is not None for device in self.devices):
            self._thread = threading.Thread(target=self._poll, name="deadweight-energy", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._advance()
        self.seconds = time.perf_counter() - self._start
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self) -> None:
        while not self._stopped.wait(POLL):
            self._advance()

    def _advance(self) -> None:
        with self._lock:
            for track in self._tracks:
                track.advance()

    def readings(self) -> dict[str, Reading]:
        """One reading a device."""
        return {track.device.name: self._reading(track) for track in self._tracks}

    def total(self) -> Reading:
        """The sum of what was read; its reason names what it does not cover."""
        return add_up(self.readings())

    def _reading(self, track: _Track) -> Reading:
        device = track.device
        if device.provenance == "missing" or track.fault:
            return Reading.missing(UNIT, track.fault or device.reason, device.cure)
        if self.seconds < device.shortest or track.total == 0:
            return Reading.missing(
                UNIT,
                f"{self.seconds:.3g} s are too short for the counter {device.name}",
                "repeat the work inside one measurement until it takes longer",
            )
        return Reading(track.total, UNIT, device.provenance, device.reason)


def add_up(readings: dict[str, Reading]) -> Reading:
    """The total of several devices. The weakest provenance among the read ones is the total's.

    Devices that could not be read leave the total standing, but it says that they are not in it; with none read
    the total is missing.
    """
    read = {name: r for name, r in readings.items() if r.value is not None}
    lost = {name: r for name, r in readings.items() if r.value is None}
    why = "; ".join(f"{name}: {r.reason}" for name, r in lost.items())
    cure = "; ".join(dict.fromkeys(r.cure for r in lost.values() if r.cure))
    if not read:
        return Reading.missing(UNIT, why or "no energy counter was asked for", cure or "pass energy=True")
    weakest: Provenance = "measured"
    for weaker in ("integrated", "modelled"):
        if any(r.provenance == weaker for r in read.values()):
            weakest = weaker
    notes = [r.reason for r in read.values() if r.reason]
    if lost:
        notes.append(f"covers {', '.join(read)} only; not included: {why}")
    return Reading(sum(r.value for r in read.values() if r.value is not None), UNIT, weakest, "; ".join(notes), cure)
