"""Energy from the machine's own counters, each reading with its provenance; no number is ever invented.

Counters are found through zeus (RAPL for processors and their memory, NVML and AMD SMI for GPUs, Apple and Jetson
boards), which reports a machine without any as 0 J; here such a machine's energy is missing, with reason and cure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from deadweight.errors import InputError
from deadweight.meters.devices import EnergyDevice
from deadweight.meters.idle import IdlePower
from deadweight.meters.reading import UNIT, Reading, add_up

POLL = 5.0  # seconds; a counter must be read at least once a turn to see that it wrapped around
SAMPLE = 0.1  # seconds between two samples of power
# No processor package or GPU draws more. A counter that stepped back by more than this allows has begun anew (after a
# suspend, a driver's restart) or is at fault; what it counted meanwhile nobody knows.
MOST_WATTS = 2000.0
_UPDATE = 1.0  # seconds; the longest a counter may lie behind


class _Track:
    """One device's joules since its first read, whole turns of its counter included, and those of its power."""

    def __init__(self, device: EnergyDevice) -> None:
        self.device, self.total, self.fault = device, 0.0, ""
        self.integral, self.samples = 0.0, 0
        self._last = device.joules()
        self._read = time.perf_counter()
        self.from_power = device.provenance == "integrated" and self._last is None
        told = getattr(device, "power", None)
        self._tells: Callable[[], float | None] | None = told if callable(told) else None
        self._power: tuple[float, float] | None = None  # when, watts

    def advance(self) -> None:
        if self.from_power:
            return
        now, at = self.device.joules(), time.perf_counter()
        if now is None or self._last is None:
            self.fault = self.fault or self.device.reason or "the counter could not be read"
            return
        step = now - self._last
        if step < 0:
            if self.device.modulus is None:
                self.fault = "the counter went backwards"
                return
            back, step = step, step + self.device.modulus
            if not 0 <= step <= MOST_WATTS * (at - self._read + _UPDATE):
                self.fault = (
                    f"the counter stepped back by {-back:,.6g} J, which is no turn of it: {step:,.0f} J in "
                    f"{at - self._read:.3g} s is more than anything draws"
                )
                return
        self.total += step
        self._last, self._read = now, at

    def sample(self) -> None:
        """Add the trapezoid between the last power and this one."""
        if self._tells is None:
            return
        now, watts = time.perf_counter(), self._tells()
        if watts is None:
            return
        if self._power is not None:
            then, before = self._power
            self.integral += (now - then) * (before + watts) / 2
        self._power, self.samples = (now, watts), self.samples + 1


class EnergyMeter:
    """Joules of several devices between `start` and `stop`, one :class:`Reading` each and one in total.

    Parameters
    ----------
    devices:
        What is charged, each name once. Counters run for the machine: what other processes do is in them.
    idle:
        Power at rest, from :func:`~deadweight.meters.idle_power`; then `above_idle` says what the work added.
    """

    def __init__(self, devices: Sequence[EnergyDevice], *, idle: IdlePower | None = None) -> None:
        names = [device.name for device in devices]
        if len(set(names)) < len(names):
            raise InputError(f"energy devices {names}", expected="a name each", cure="charge each device once")
        self.devices: list[EnergyDevice] = list(devices)
        self.idle: IdlePower | None = idle
        self.seconds: float = 0.0

    @property
    def scope(self) -> dict[str, str]:
        """What each device's joules cover."""
        return {device.name: str(getattr(device, "scope", device.name)) for device in self.devices}

    def start(self) -> None:
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._tracks = [_Track(device) for device in self.devices]
        for track in self._tracks:
            track.sample()
        self._start = time.perf_counter()
        powered = any(track.samples for track in self._tracks)
        self._thread: threading.Thread | None = None
        if powered or any(device.modulus is not None for device in self.devices):
            self._thread = threading.Thread(
                target=self._watch, args=(SAMPLE if powered else POLL,), name="deadweight-energy", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        self._advance()
        self.seconds = time.perf_counter() - self._start
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for track in self._tracks:
            track.sample()

    def _watch(self, period: float) -> None:
        polled = time.perf_counter()
        while not self._stopped.wait(period):
            with self._lock:
                for track in self._tracks:
                    track.sample()
            if time.perf_counter() - polled > 0.9 * POLL:
                polled = time.perf_counter()
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

    def integrated(self) -> dict[str, Reading]:
        """Joules from sampled power, of the devices that have a counter as well: the second opinion."""
        return {
            track.device.name: Reading(track.integral, UNIT, "integrated")
            for track in self._tracks
            if track.device.provenance == "measured" and track.samples > 1
        }

    def disagreement(self) -> dict[str, float]:
        """(integrated − counted) / counted of each device that has both."""
        counted = self.readings()
        return {
            name: (reading.value - joules) / joules
            for name, reading in self.integrated().items()
            if reading.value is not None and (joules := counted[name].value) is not None
        }

    def above_idle(self) -> Reading:
        """What was used beyond the power at rest; may be below zero where the work is within its noise."""
        if self.idle is None:
            return Reading.missing(UNIT, "power at rest was not measured", "measure it before: idle_power(seconds=10)")
        return add_up(self.idle.taken_from(self.readings(), self.seconds))

    def _reading(self, track: _Track) -> Reading:
        device = track.device
        if device.provenance == "missing" or track.fault:
            return Reading.missing(UNIT, track.fault or device.reason, device.cure)
        if track.from_power and not track.samples:
            return Reading.missing(UNIT, f"{device.name} tells no power", device.cure)
        joules = track.integral if track.from_power else track.total
        if self.seconds < device.shortest or joules == 0:
            return Reading.missing(
                UNIT,
                f"{self.seconds:.3g} s are too short for the counter {device.name}",
                "repeat the work inside one measurement until it takes longer: measure_repeated(work)",
            )
        return Reading(joules, UNIT, device.provenance, device.reason)
