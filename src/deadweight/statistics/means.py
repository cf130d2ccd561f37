"""Means of values that may be skewed and few, and the relative rise of a loss."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log1p, sqrt

import numpy as np

from deadweight.errors import InputError
from deadweight.statistics.clusters import grouped, pseudo_values
from deadweight.statistics.estimate import (
    LEVEL,
    Estimate,
    Floats,
    Numbers,
    Source,
    check_level,
    interval_label,
    normal_factor,
    numbers,
    pairs,
    spread_only,
    student_factor,
)
from deadweight.statistics.inversion import two_sided_p

LEAST = 5  # below it a skew of the values cannot be told from none, and no end is ever finite


@dataclass(frozen=True)
class Moments:
    """What an interval for a mean needs: mean, standard deviation and skewness freed of their bias, number."""

    mean: float
    deviation: float
    skewness: float
    n: int

    @classmethod
    def of(cls, values: Floats, mean: float | None = None) -> Moments:
        own = float(values.mean())
        deviation = float(values.std(ddof=1))
        n, skewness = len(values), 0.0
        if deviation > 0 and n > 2:
            skewness = float(((values - own) ** 3).sum()) / deviation**3 * n / ((n - 1) * (n - 2))
        return cls(own if mean is None else mean, deviation, skewness, n)

    def ends(self, tail: float) -> tuple[float, float]:
        """Student's interval, wider on the side where a skewed sample hides its large values.

        Hall's exponential transformation (1992) removes the skewness from Student's t. The skewness is not taken as
        it was seen, for a small sample shows too little of it, but at the end of what its standard error √(6/n)
        leaves open: one error at tail 0.025, more further out (ours; chosen by simulation). An end that this leaves
        unbounded is infinite.
        """
        reach = student_factor(tail, self.n - 1) / sqrt(self.n)
        doubt = max(0.0, normal_factor(tail) - 1) * sqrt(6 / self.n)
        up = _stretched(reach, max(0.0, self.skewness + doubt))
        down = _stretched(reach, max(0.0, doubt - self.skewness))
        return self.mean - self.deviation * down, self.mean + self.deviation * up

    def student(self, tail: float) -> tuple[float, float]:
        """Student's interval."""
        half = student_factor(tail, self.n - 1) * self.deviation / sqrt(self.n)
        return self.mean - half, self.mean + half


def _stretched(reach: float, skewness: float) -> float:
    """Distance from the mean, in standard deviations, at which the transformed statistic reaches `reach`."""
    bend = 2 * skewness / 3
    if bend < 1e-9:
        return reach
    return -log1p(-bend * reach) / bend if bend * reach < 1 else inf


def mean(
    values: Numbers,
    margin: float | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    symmetric: bool = False,
    level: float = LEVEL,
    unit: str = "items",
) -> Estimate:
    """Mean with an interval that holds for few and skewed values, such as losses of 16 sequences.

    Parameters
    ----------
    values:
        (n,) any real numbers. For differences of right/wrong use :func:`accuracy_loss`.
    margin:
        The value that p is computed against; None for no p.
    clusters:
        (n,) labels of what belongs together (neighbouring windows of one text): clusters are then what was sampled.
        The mean stays that of all values.
    symmetric:
        Of values that are averages of many themselves, such as the losses of training runs: Student's interval.
    unit:
        What was sampled, where there are no clusters.

    Returns
    -------
    Estimate
        In the unit of the values (:meth:`Moments.ends`). An end that the data do not bound is None. Without any
        interval (one value or cluster, all alike, fewer than five skewed ones) the label says what is shown.

    Raises
    ------
    InputError
        No values, values that are not finite, or as many labels as values are missing.

    Examples
    --------
    >>> found = mean([0.1, 0.2, 0.1, 0.4, 0.2, 0.1, 0.3, 0.2] * 2, margin=0.5)
    >>> found.value, found.low > 0.1, found.high < 0.35, found.p < 0.01
    (0.2, True, True, True)
    """
    data = numbers(values)
    ones = np.ones_like(data)
    return ratio_of_sums(data, ones, margin, clusters=clusters, symmetric=symmetric, level=level, unit=unit)


def rise(
    before: Numbers,
    after: Numbers,
    margin: float | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    unit: str = "sequences",
) -> Estimate:
    """Relative rise of a mean loss: (mean after − mean before) / mean before, over the same sequences.

    Parameters
    ----------
    before, after:
        (n,) losses of each sequence, in nats per token; those before are positive on average.
    margin, clusters, unit:
        As in :func:`mean`.

    Returns
    -------
    Estimate
        As a share: 0.01 is one per cent. The interval is that of a mean, over the jackknife's pseudo-values.

    Raises
    ------
    InputError
        As :func:`mean`; or the mean before is not positive.

    Examples
    --------
    >>> before = [2.0, 3.0, 2.5, 3.5, 2.2, 2.9, 3.1, 2.4]
    >>> found = rise(before, [1.1 * loss for loss in before])
    >>> round(found.value, 3), found.label
    (0.1, 'all 8 values alike')
    """
    one, two = pairs(before, after)
    if one.mean() <= 0:
        raise InputError(
            f"a mean loss of {one.mean():g} before", expected="a positive one to take the rise relative to"
        )
    return ratio_of_sums(two - one, one, margin, clusters=clusters, symmetric=False, level=level, unit=unit)


def ratio_of_sums(
    numerators: Floats,
    denominators: Floats,
    margin: float | None,
    *,
    clusters: Sequence[Hashable] | None,
    symmetric: bool,
    level: float,
    unit: str,
) -> Estimate:
    """Σ numerators / Σ denominators with the interval of a mean, over pseudo-values of values or clusters."""
    n, tail = len(numerators), (1 - check_level(level)) / 2
    if clusters is not None:
        unit, (numerators, _), (denominators, _) = (
            "clusters", grouped(numerators, clusters), grouped(denominators, clusters),
        )  # fmt: skip
    value = float(numerators.sum() / denominators.sum())
    if len(numerators) < 2:
        return spread_only(np.asarray([value]), unit, least=2 if symmetric else LEAST)
    pseudo = pseudo_values(numerators, denominators)
    found = Moments.of(pseudo, value)
    if found.deviation <= 1e-12 * max(1.0, abs(value)):
        label = f"all {found.n} {'clusters' if clusters is not None else 'values'} alike"
        return Estimate(value, None, None, n, None, 0.0, label, (Source(unit, found.n),))
    if not symmetric and found.n < LEAST:
        return spread_only(numerators / denominators, unit, least=LEAST, value=value)
    ends = found.student if symmetric else found.ends
    low, high = ends(tail)
    p = None if margin is None else two_sided_p(ends, value, margin)
    half = (high - low) / 2
    sources = (Source(unit, found.n, half if isfinite(half) else None, 2 if symmetric else LEAST),)
    return Estimate(value, _bound(low), _bound(high), n, p, level, interval_label(level), sources)


def _bound(end: float) -> float | None:
    return end if isfinite(end) else None
