"""Rounds of timing: medians and ratios, with exact intervals where there are rounds enough."""

from __future__ import annotations

import numpy as np
from scipy import stats

from deadweight.errors import InputError
from deadweight.statistics.estimate import (
    LEVEL,
    Estimate,
    Numbers,
    Source,
    check_level,
    interval_label,
    numbers,
    pairs,
    spread_only,
)


def median(values: Numbers, margin: float | None = None, *, level: float = LEVEL, unit: str = "rounds") -> Estimate:
    """Median of repeated measurements, such as seconds of interleaved rounds.

    Parameters
    ----------
    values:
        (n,) one for each round.
    margin:
        The value that the sign test's p is computed against; None for no p.

    Returns
    -------
    Estimate
        From the order statistics between which the median lies with at least the level's probability, whatever the
        distribution (the inverted sign test; Conover 1999, section 3.2). Fewer than six rounds reach 95 % with no
        order statistics: low and high are then their range, and the label says so.

    Raises
    ------
    InputError
        No values, or values that are not finite.

    Examples
    --------
    >>> found = median([3.0, 1.0, 2.0])
    >>> found.value, found.low, found.high, found.label, found.covers
    (2.0, 1.0, 3.0, 'range of 3 rounds', False)
    """
    data = np.sort(numbers(values))
    n, tail = len(data), (1 - check_level(level)) / 2
    centre, least = float(np.median(data)), least_rounds(level)
    if n < least:
        return spread_only(data, unit, least=least, value=centre)
    outside = int(stats.binom.ppf(tail, n, 0.5))  # as many at each end may be left out
    low, high = float(data[outside - 1]), float(data[n - outside])
    p = None if margin is None else _sign_test(data, margin)
    half = (high - low) / 2
    return Estimate(centre, low, high, n, p, level, interval_label(level), (Source(unit, n, half, least),))


def least_rounds(level: float = LEVEL) -> int:
    """How many rounds reach the level: 6 for 95 %.

    >>> least_rounds()
    6
    """
    n = 1
    while 2 * 0.5**n > 1 - level + 1e-12:
        n += 1
    return n


def _sign_test(data: np.ndarray[tuple[int], np.dtype[np.float64]], margin: float) -> float:
    """Two-sided; rounds that equal the margin count for neither side, which can only raise p."""
    below, above = int((data < margin).sum()), int((data > margin).sum())
    return min(1.0, 2 * float(stats.binom.cdf(len(data) - max(below, above), len(data), 0.5)))


def ratio(
    ours: Numbers, theirs: Numbers, margin: float | None = None, *, level: float = LEVEL, unit: str = "rounds"
) -> Estimate:
    """Median of ours / theirs, paired by round: what both met in a round (a busy machine) cancels.

    Parameters
    ----------
    ours, theirs:
        (n,) positive, of the same rounds.
    margin:
        The ratio that p is computed against; 1 asks which is larger.

    Returns
    -------
    Estimate
        As :func:`median`.

    Raises
    ------
    InputError
        Lists of different lengths, or values that are not positive.

    Examples
    --------
    >>> ratio([2.0, 4.0, 6.0, 2.2, 3.0, 5.0], [1.0, 2.0, 3.0, 1.0, 2.0, 2.5]).value
    2.0
    """
    one, two = pairs(ours, theirs)
    if min(one.min(), two.min()) <= 0:
        raise InputError("a ratio of values that are not positive", expected="seconds, joules or bytes above 0")
    return median(one / two, margin, level=level, unit=unit)
