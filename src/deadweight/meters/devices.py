"""What an energy counter is, and three that need no hardware: one that is absent, one played back, one modelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from deadweight.errors import InputError
from deadweight.meters.reading import Provenance


class EnergyDevice(Protocol):
    """A counter of joules.

    name:       e.g. ``cpu package-0``; each name is charged once.
    provenance: how its joules are got; ``missing`` where there are none.
    modulus:    joules after which it starts again from 0, None if it never does.
    shortest:   seconds of the shortest window its resolution supports.
    reason, cure: why it is missing (or who modelled it), and what to do about that.

    What a counter covers (``scope``) and the power the device shows (``power()``) may be added; see
    :class:`PoweredDevice`.
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


class PoweredDevice(Protocol):
    """A device that also tells its power. A meter samples that: as a second opinion beside a counter, or, where the
    provenance is ``integrated``, in its stead."""

    def power(self) -> float | None:
        """Power now; None when it cannot be read."""


@dataclass(frozen=True)
class NullEnergy:
    """A device that is not there, or may not be read: its energy is missing.

    >>> import deadweight as dw
    >>> with dw.measure([dw.NullEnergy("cpu", "no counter here", "run as root")]) as cost:
    ...     pass
    >>> cost.energy.value, cost.energy.reason
    (None, 'cpu: no counter here')
    """

    name: str = "null"
    reason: str = "no energy counter"
    cure: str = "measure on a machine with RAPL or NVML counters, or give a power model"
    provenance: Provenance = "missing"
    modulus: float | None = None
    shortest: float = 0.0
    scope: str = "nothing"

    def joules(self) -> float | None:
        return None


class ReplayEnergy:
    """A counter that plays back `values`, one a read, then stays at the last: for tests and rehearsals.

    Parameters
    ----------
    values:
        Joules the counter shows, read after read.
    modulus:
        Joules after which it starts again from 0; ``values`` must then lie below it.
    watts:
        Powers to play back beside them, one a sample; the last one stays.
    provenance:
        ``"integrated"`` makes it a device without a counter, of which only `watts` are read.

    Examples
    --------
    >>> import deadweight as dw
    >>> with dw.measure([dw.ReplayEnergy([0.0, 6.0])]) as cost:
    ...     pass
    >>> cost.energy.value, cost.energy.unit, cost.energy.provenance
    (6.0, 'J', 'measured')
    """

    reason = cure = ""

    def __init__(
        self,
        values: Sequence[float],
        *,
        modulus: float | None = None,
        name: str = "replay",
        watts: Sequence[float] = (),
        shortest: float = 0.0,
        provenance: Provenance = "measured",
    ) -> None:
        if not values and not watts:
            raise InputError("no values to replay", expected="at least one counter value", cure="give the readings")
        if modulus is not None and any(not 0 <= value < modulus for value in values):
            raise InputError(f"counter values {list(values)}", expected=f"0 ≤ value < modulus {modulus:g}")
        self.name: str = name
        self.modulus: float | None = modulus
        self.shortest: float = shortest
        self.provenance: Provenance = provenance
        self.scope: str = f"what {name} plays back"
        self._values, self._watts = _Played(values), _Played(watts)

    def joules(self) -> float | None:
        return self._values.next()

    def power(self) -> float | None:
        return self._watts.next()


class _Played:
    def __init__(self, values: Sequence[float]) -> None:
        self._values, self._at = list(values), 0

    def next(self) -> float | None:
        if not self._values:
            return None
        value = self._values[min(self._at, len(self._values) - 1)]
        self._at += 1
        return value


@dataclass(frozen=True)
class ModelledEnergy:
    """A power model its `author` vouches for; its readings say *modelled*, and by whom.

    watts:      drawn at full load; all the time, where `idle_watts` is None.
    idle_watts: drawn at no load. Between the two power rises in a line with the share of the machine's processor
                time that is not idle (ours: the simplest model that tells rest from work).

    >>> import deadweight as dw
    >>> with dw.measure([dw.ModelledEnergy(50.0, "the maker's data sheet")]) as cost:
    ...     _ = sum(range(1000))
    >>> cost.energy.provenance, cost.energy.value > 0
    ('modelled', True)
    """

    watts: float
    author: str
    name: str = "model"
    idle_watts: float | None = None
    cure: str = ""
    provenance: Provenance = "modelled"
    modulus: float | None = None
    shortest: float = 0.0

    def __post_init__(self) -> None:
        if not self.author.strip():
            raise InputError("a power model without an author", expected="who vouches for it", cure='author="me"')
        if self.watts <= 0 or not 0 <= (self.idle_watts or 0.0) <= self.watts:
            raise InputError(
                f"a power model of {self.watts:g} W at full load and {self.idle_watts} W idle",
                expected="watts > 0 and 0 ≤ idle_watts ≤ watts",
                cure="give powers in watts",
            )

    @property
    def scope(self) -> str:
        return f"what {self.author} means by it"

    @property
    def reason(self) -> str:
        span = f"{self.watts:g} W" if self.idle_watts is None else f"{self.idle_watts:g} to {self.watts:g} W by load"
        return f"{span} assumed by {self.author}"

    def joules(self) -> float | None:
        now = time.perf_counter()
        if self.idle_watts is None:
            return self.watts * now
        return self.idle_watts * now + (self.watts - self.idle_watts) * _busy_seconds()


def _busy_seconds() -> float:
    """Seconds the machine has been at work, as if on one core of all its cores' strength."""
    spent = psutil.cpu_times()
    waiting = spent.idle + getattr(spent, "iowait", 0.0)
    guests = getattr(spent, "guest", 0.0) + getattr(spent, "guest_nice", 0.0)  # Linux has them in user and nice too
    return float(sum(spent) - waiting - guests) / (psutil.cpu_count() or 1)
