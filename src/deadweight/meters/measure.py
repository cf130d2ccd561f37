"""`measure()`: time, processor time, peak memory and energy of a piece of work, in one context manager."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch

from deadweight.errors import InputError
from deadweight.meters.clock import Stopwatch, accelerator
from deadweight.meters.counters import energy_devices
from deadweight.meters.devices import EnergyDevice
from deadweight.meters.energy import EnergyMeter
from deadweight.meters.idle import IdlePower, watts
from deadweight.meters.memory import MemoryMeter, resident
from deadweight.meters.reading import UNIT, Reading
from deadweight.meters.utilisation import UtilisationMeter

_NOT_ASKED = Reading.missing(UNIT, "energy was not asked for", "measure(energy=True)")


class Cost:
    """What a piece of work cost. Readable once its ``with`` block has ended, raised or not.

    seconds:      between edges that wait for the accelerator, by a monotonic clock.
    cpu_seconds:  processor time of this process and all its threads.
    peak_bytes:   CPU: peak resident memory above entry; accelerator: the allocator's peak above entry.
    peak_source:  ``high-water mark`` (exact), ``sampled`` (short peaks can be missed) or ``allocator``.
    resident_bytes: of this process at the end.
    disk_read_bytes, disk_write_bytes: of this process, None where the system does not tell.
    accelerator_use: share of the time the accelerator was at work, as a :class:`Reading`.
    energy:       joules as a :class:`Reading`; ``missing`` unless asked for and readable.
    energy_parts: the same, one reading a device; `energy_scope` says what each covers.
    energy_integrated: of devices with a counter, the joules from their sampled power; `energy_disagreement` is
                  (integrated − counted) / counted.
    energy_above_idle: joules beyond the power at rest, where ``measure(idle=…)`` was given; `idle` is kept.
    power:        mean watts, with the provenance of the energy.
    cores_busy:   processor time over time: 2.0 means two cores were at work throughout.
    """

    def __init__(
        self, watch: Stopwatch, memory: MemoryMeter, energy: EnergyMeter | None, use: UtilisationMeter
    ) -> None:
        self._watch, self._memory, self._energy, self._use = watch, memory, energy, use
        self._done = False
        self._resident = 0

    @property
    def seconds(self) -> float:
        return self._ended()._watch.seconds

    @property
    def cpu_seconds(self) -> float:
        return self._ended()._watch.cpu_seconds

    @property
    def cores_busy(self) -> float:
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def peak_bytes(self) -> int:
        return self._ended()._memory.peak_bytes

    @property
    def peak_source(self) -> str:
        return self._memory.source

    @property
    def energy(self) -> Reading:
        meter = self._ended()._energy
        return _NOT_ASKED if meter is None else meter.total()

    @property
    def energy_above_idle(self) -> Reading:
        meter = self._ended()._energy
        return _NOT_ASKED if meter is None else meter.above_idle()

    @property
    def idle(self) -> IdlePower | None:
        return None if self._energy is None else self._energy.idle

    @property
    def energy_scope(self) -> dict[str, str]:
        return {} if self._energy is None else self._energy.scope

    @property
    def energy_integrated(self) -> dict[str, Reading]:
        meter = self._ended()._energy
        return {} if meter is None else meter.integrated()

    @property
    def energy_disagreement(self) -> dict[str, float]:
        meter = self._ended()._energy
        return {} if meter is None else meter.disagreement()

    @property
    def power(self) -> Reading:
        return watts(self.energy, self.seconds)

    @property
    def resident_bytes(self) -> int:
        return self._ended()._resident

    @property
    def disk_read_bytes(self) -> int | None:
        return self._ended()._use.disk_read_bytes

    @property
    def disk_write_bytes(self) -> int | None:
        return self._ended()._use.disk_write_bytes

    @property
    def accelerator_use(self) -> Reading:
        return self._ended()._use.accelerator

    @property
    def energy_parts(self) -> dict[str, Reading]:
        self._ended()
        return {} if self._energy is None else self._energy.readings()

    def as_json(self) -> dict[str, object]:
        """For a record's ``measured``."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_bytes": self.peak_bytes,
            "peak_source": self.peak_source,
            "resident_bytes": self.resident_bytes,
            "disk_read_bytes": self.disk_read_bytes,
            "disk_write_bytes": self.disk_write_bytes,
            "cores_busy": self.cores_busy,
            "accelerator_use": self.accelerator_use.as_json(),
            "energy": self.energy.as_json(),
            "energy_above_idle": self.energy_above_idle.as_json(),
            "idle": None if self.idle is None else self.idle.as_json(),
            "power": self.power.as_json(),
            "energy_parts": {name: reading.as_json() for name, reading in self.energy_parts.items()},
            "energy_scope": self.energy_scope,
            "energy_disagreement": self.energy_disagreement,
        }

    def _ended(self) -> Cost:
        if not self._done:
            raise InputError(
                "a cost was read before its work had ended",
                expected="reading it after the with block",
                cure="move the reading below the block",
            )
        return self


class measure:  # noqa: N801  # used as a verb: with measure() as cost
    """``with measure(energy=True) as cost: work()``; may be nested, each block with its own cost.

    Parameters
    ----------
    energy: True reads every counter of the machine; a list of :class:`EnergyDevice` reads those.
    device: whose queue the clock waits for and whose memory is watched; None takes the accelerator if there is
            one, ``"cpu"`` the resident memory of the process.
    idle:   power at rest, from :func:`idle_power`, so that ``cost.energy_above_idle`` says what the work added.

    Energy counters run for the machine, not for the process: what else runs meanwhile is in the joules.

    Examples
    --------
    >>> import torch
    >>> with measure() as cost:
    ...     _ = torch.ones(64, 64) @ torch.ones(64, 64)
    >>> cost.seconds > 0, cost.peak_bytes >= 0
    (True, True)
    """

    def __init__(
        self,
        energy: bool | Sequence[EnergyDevice] = False,
        *,
        device: str | torch.device | None = None,
        idle: IdlePower | None = None,
    ) -> None:
        place = accelerator() if device is None else torch.device(device)
        if place is not None and place.type in ("cpu", "meta"):
            place = None
        devices = energy_devices() if energy is True else list(energy) if energy else None
        self._watch = Stopwatch(place)
        self._memory = MemoryMeter(place)
        self._use = UtilisationMeter(place)
        self._energy = None if devices is None else EnergyMeter(devices, idle=idle)
        self._cost = Cost(self._watch, self._memory, self._energy, self._use)

    def __enter__(self) -> Cost:
        if self._cost._done:
            raise InputError("a measurement was entered twice", expected="one measure() a block", cure="call it anew")
        self._memory.start()
        self._use.start()
        if self._energy is not None:
            self._energy.start()
        self._watch.start()
        return self._cost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._watch.stop()
        finally:  # a failed kernel surfaces when the clock waits for it; the threads must end all the same
            if self._energy is not None:
                self._energy.stop()
            self._use.stop()
            self._memory.stop()
            self._cost._resident = resident()
            self._cost._done = True
