"""`measure()`: time, processor time, peak memory and energy of a piece of work, in one context manager."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch

from deadweight.errors import InputError
from deadweight.meters.clock import Stopwatch, accelerator
from deadweight.meters.counters import energy_devices
from deadweight.meters.energy import UNIT, EnergyDevice, EnergyMeter, add_up
from deadweight.meters.memory import MemoryMeter
from deadweight.meters.reading import Reading

_NOT_ASKED = Reading.missing(UNIT, "energy was not asked for", "measure(energy=True)")


class Cost:
    """What a piece of work cost. Readable once its ``with`` block has ended, raised or not.

    seconds:      between edges that wait for the accelerator, by a monotonic clock.
    cpu_seconds:  processor time of this process and all its threads.
    peak_bytes:   CPU: peak resident memory above entry; accelerator: the allocator's peak above entry.
    peak_source:  ``high-water mark`` (exact), ``sampled`` (short peaks can be missed) or ``allocator``.
    energy:       joules as a :class:`Reading`; ``missing`` unless asked for and readable.
    energy_parts: the same, one reading a device.
    cores_busy:   processor time over time: 2.0 means two cores were at work throughout.
    """

    def __init__(self, watch: Stopwatch, memory: MemoryMeter, energy: EnergyMeter | None) -> None:
        self._watch, self._memory, self._energy = watch, memory, energy
        self._done = False

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
        return _NOT_ASKED if self._ended()._energy is None else add_up(self.energy_parts)

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
            "energy": self.energy.as_json(),
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

    Energy counters run for the machine, not for the process: what else runs meanwhile is in the joules.
    """

    def __init__(
        self, energy: bool | Sequence[EnergyDevice] = False, *, device: str | torch.device | None = None
    ) -> None:
        place = accelerator() if device is None else torch.device(device)
        if place is not None and place.type in ("cpu", "meta"):
            place = None
        devices = energy_devices() if energy is True else list(energy) if energy else None
        self._watch = Stopwatch(place)
        self._memory = MemoryMeter(place)
        self._energy = None if devices is None else EnergyMeter(devices)
        self._cost = Cost(self._watch, self._memory, self._energy)

    def __enter__(self) -> Cost:
        if self._cost._done:
            raise InputError("a measurement was entered twice", expected="one measure() a block", cure="call it anew")
        self._memory.start()
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
            self._memory.stop()
            self._cost._done = True
