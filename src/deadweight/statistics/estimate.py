"""A value, how far it may be from the truth, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from deadweight.errors import InputError

LEVEL = 0.95
Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | Sequence[int] | Sequence[bool] | npt.NDArray[np.generic]


@dataclass(frozen=True)
class Source:
    """One thing that was sampled, and what it adds to the uncertainty.

    Parameters
    ----------
    name:
        Plural, as a sentence needs it: items, sequences, clusters, sets of demonstrations, seeds, rounds.
    n:
        How many there were.
    half:
        Half the width of the interval if nothing else were uncertain, in the estimate's unit; None where so few
        bound nothing. The halves of several sources add in squares.
    least:
        How many there must be before there is an interval at all.
    """

    name: str
    n: int
    half: float | None = None
    least: int = 2


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that the data allow, or with what can be shown in its place.

    Parameters
    ----------
    value:
        The estimate.
    low, high:
        The ends of what `label` names; None where the data bound nothing on that side.
    n:
        How many values it was estimated from.
    p:
        Two-sided against the margin that was asked about: at most 1 − level exactly where the margin lies outside the
        interval. None where nothing was asked, or where no test is honest; such an estimate never gets a verdict.
    level:
        The share of data sets whose interval holds the true value; 0 where low and high are only a range.
    label:
        What low and high are, as a page says it: "95 % interval", "range of 3 rounds", "one measurement".
    sources:
        What was sampled, see :class:`Source`.

    Examples
    --------
    >>> Estimate(0.1, 0.05, 0.15, 200).covers, Estimate(0.1, 0.05, 0.15, 3, None, 0.0, "range of 3 rounds").covers
    (True, False)
    """

    value: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None
    level: float = LEVEL
    label: str = "95 % interval"
    sources: tuple[Source, ...] = ()

    @property
    def covers(self) -> bool:
        """Whether low and high promise anything about the true value."""
        return self.level > 0 and not (self.low is None and self.high is None)

    @property
    def limited_by(self) -> Source | None:
        """What dominates the uncertainty: more of it narrows the interval most. None where nobody knows."""
        if not self.sources:
            return None
        return max(self.sources, key=lambda source: np.inf if source.half is None else source.half)


def interval_label(level: float) -> str:
    """What an interval of this level is called.

    >>> interval_label(0.95)
    '95 % interval'
    """
    return f"{100 * level:.3g} % interval"


def spread_only(values: Floats, name: str, *, least: int, value: float | None = None) -> Estimate:
    """The range of too few values, called that; of one value nothing but itself."""
    n = len(values)
    centre = float(np.mean(values)) if value is None else value
    sources = (Source(name, n, None, least),)
    if n == 1:
        return Estimate(centre, None, None, 1, None, 0.0, "one measurement", sources)
    low, high = float(np.min(values)), float(np.max(values))
    return Estimate(centre, low, high, n, None, 0.0, f"range of {n} {name}", sources)


def numbers(values: Numbers, name: str = "values") -> Floats:
    """(n,) finite float64 of at least one value.

    Raises
    ------
    InputError
        None, of another shape, or not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise InputError(f"{name} of shape {data.shape}", expected="a list of at least one number")
    if not np.isfinite(data).all():
        raise InputError(f"{name} that are not finite", expected="numbers only", cure="leave out what was not measured")
    return data


def pairs(before: Numbers, after: Numbers) -> tuple[Floats, Floats]:
    """Both as :func:`numbers`; InputError where they are not equally long."""
    one, two = numbers(before, "values before"), numbers(after, "values after")
    if one.shape != two.shape:
        raise InputError(f"{len(one)} values before, {len(two)} after", expected="one pair for each item")
    return one, two


def check_level(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level {level}", expected="a share between 0 and 1, such as 0.95")
    return level


def student_factor(tail: float, freedom: float) -> float:
    """Student's t that is exceeded with probability `tail`; scipy's distribution objects take 50 times as long."""
    return -float(special.stdtrit(freedom, tail))


def normal_factor(tail: float) -> float:
    """The standard normal that is exceeded with probability `tail`."""
    return -float(special.ndtri(tail))
