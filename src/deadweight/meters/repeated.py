"""Work that is too short for a counter, repeated inside one measurement until it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from deadweight.meters.counters import energy_devices
from deadweight.meters.devices import EnergyDevice
from deadweight.meters.idle import IdlePower
from deadweight.meters.measure import Cost, measure
from deadweight.meters.reading import Reading


@dataclass(frozen=True)
class RepeatedCost:
    """The cost of `times` calls in one measurement, and of one of them.

    whole: of all calls, as measured.
    """

    whole: Cost
    times: int

    @property
    def seconds(self) -> float:
        return self.whole.seconds / self.times

    @property
    def energy(self) -> Reading:
        """Joules a call."""
        return _share(self.whole.energy, self.times)

    @property
    def energy_above_idle(self) -> Reading:
        return _share(self.whole.energy_above_idle, self.times)


def _share(reading: Reading, times: int) -> Reading:
    return replace(reading, value=None if reading.value is None else reading.value / times)


def measure_repeated(
    work: Callable[[], object],
    *,
    energy: bool | Sequence[EnergyDevice] = True,
    seconds: float = 0.0,
    device: str | torch.device | None = None,
    idle: IdlePower | None = None,
    most: int = 100_000,
) -> RepeatedCost:
    """Call `work` often enough, in one measurement, for the slowest counter's resolution, and at least `seconds`.

    A window shorter than its counter supports gives no reading; this makes the window long enough. `work` is called
    once before, unmeasured. Devices that are missing ask for no repetition; more than `most` calls are never made.

    >>> import deadweight as dw
    >>> cost = measure_repeated(lambda: sum(range(1000)), energy=[dw.NullEnergy("cpu", "none here")])
    >>> cost.times >= 1
    True
    """
    devices = energy_devices() if energy is True else list(energy or ())
    window = max([seconds, *(device.shortest for device in devices if device.provenance != "missing")])
    with measure(device=device) as first:
        work()
    times = 1
    while True:
        with measure(devices, device=device, idle=idle) as cost:
            for _ in range(times):
                work()
        if cost.seconds >= window or times >= most:
            return RepeatedCost(cost, times)
        each = min(first.seconds, cost.seconds / times) or 1e-7
        times = min(most, max(2 * times, int(1.1 * window / each) + 1))
