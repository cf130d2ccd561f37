"""Right or wrong: rates, and losses of accuracy over the same items."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import sqrt

import numpy as np
from scipy import special

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
    numbers,
    pairs,
    spread_only,
    student_factor,
)
from deadweight.statistics.inversion import two_sided_p


def exact_ends(count: float, n: float, tail: float) -> tuple[float, float]:
    """Clopper and Pearson's ends (1934) of a share, each wrong in at most `tail` of samples.

    Neither need be whole.

    >>> [round(end, 4) for end in exact_ends(0, 359, 0.025)]
    [0.0, 0.0102]
    """
    low = float(special.betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


@lru_cache(maxsize=65536)
def difference_ends(worse: float, better: float, n: float, tail: float) -> tuple[float, float]:
    """Ends of (worse − better) / n, from the exact ends of both shares.

    The distances from a share to its own ends add in squares, with the correlation that two cells of one table have
    (Donner and Zou 2012, "MOVER"; Newcombe 1998 for the correlation, here with one item more in each cell: ours, for
    tables of few items). Where no item changes for the better the upper end is the exact one of a single share.
    """
    p, q = worse / n, better / n
    (p_low, p_high), (q_low, q_high) = exact_ends(worse, n, tail), exact_ends(better, n, tail)
    odds = (worse + 1) / (n - worse + 2), (better + 1) / (n - better + 2)
    together = 2 * min(1.0, sqrt(odds[0] * odds[1]))
    down, up = p - p_low, p_high - p
    low = p - q - sqrt(down**2 + (q_high - q) ** 2 + together * down * (q_high - q))
    high = p - q + sqrt(up**2 + (q - q_low) ** 2 + together * up * (q - q_low))
    return max(-1.0, low), min(1.0, high)


def accuracy_loss(
    before: Numbers, after: Numbers, margin: float | None = None, *, level: float = LEVEL, unit: str = "items"
) -> Estimate:
    """Loss of accuracy over the same items: the share right before less the share right after.

    Parameters
    ----------
    before, after:
        (n,) right (1) or wrong (0), or each item's share of right answers, between 0 and 1.
    margin:
        The loss that p is computed against; None for no p.
    level:
        Of the interval.
    unit:
        What the items are called.

    Returns
    -------
    Estimate
        As a share: 0.01 is one point. Each end is wrong in at most (1 − level) / 2 of samples, also where few items
        change or all change for the worse (:func:`difference_ends`; `benchmarks/calibration.py` has the numbers).

    Raises
    ------
    InputError
        Lists of different lengths, or values outside 0 to 1.

    Examples
    --------
    >>> loss = accuracy_loss([1] * 359, [1] * 359, margin=0.02)
    >>> loss.value, round(loss.high, 4), loss.p < 0.05
    (0.0, 0.0102, True)
    """
    one, two = pairs(before, after)
    if min(one.min(), two.min()) < 0 or max(one.max(), two.max()) > 1:
        raise InputError("right/wrong outside 0 to 1", expected="0 for wrong, 1 for right, or an item's share")
    return loss_of(one - two, margin, level=level, unit=unit)


def loss_of(lost: Floats, margin: float | None, *, level: float = LEVEL, unit: str = "items") -> Estimate:
    """As :func:`accuracy_loss`, from the differences of each item, between −1 and 1."""
    tail, counts, value = (1 - check_level(level)) / 2, effective_changes(lost), float(lost.mean())
    low, high = difference_ends(*counts, tail)
    p = None if margin is None else two_sided_p(lambda side: difference_ends(*counts, side), value, margin)
    source = Source(unit, len(lost), (high - low) / 2)
    return Estimate(value, low, high, len(lost), p, level, interval_label(level), (source,))


def effective_changes(lost: Floats) -> tuple[float, float, float]:
    """Numbers of items that get worse, that get better, and of all, which are as sure as these differences.

    Right/wrong counts as itself. An item's share, over several seeds, changes by less than a whole item: the numbers
    grow by what that takes off the variance, Σ|d| / Σd², with one whole item more in both sums, for an item that
    changes with every seed may not have been among these few (ours).
    """
    sure = (float(np.abs(lost).sum()) + 1) / (float((lost**2).sum()) + 1)
    worse, better = float(np.clip(lost, 0, None).sum()), float(np.clip(-lost, 0, None).sum())
    return sure * worse, sure * better, sure * len(lost)


def effective_share(shares: Floats) -> tuple[float, float]:
    """Count and number of right/wrong values which are as sure as these shares; see :func:`effective_changes`."""
    n, value = len(shares), float(shares.mean())
    sure = max(1.0, (n * value * (1 - value) + 1) / (float(((shares - value) ** 2).sum()) + 1))
    return sure * n * value, sure * n


def rate(
    bits: Numbers,
    margin: float | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    unit: str = "items",
) -> Estimate:
    """A share with Clopper and Pearson's exact interval; with clusters Korn and Graubard's (1998).

    Parameters
    ----------
    bits:
        (n,) 0 or 1, or shares between.
    clusters:
        (n,) labels of what belongs together (all answers to one item, all windows of one text). The number of values
        is then divided by how much more the clusters vary than single values would, and never multiplied.

    Raises
    ------
    InputError
        Values outside 0 to 1, or as many labels as values are missing.

    Examples
    --------
    >>> found = rate([0] * 20)
    >>> found.value, found.low, round(found.high, 3)
    (0.0, 0.0, 0.168)
    """
    data, tail = numbers(bits), (1 - check_level(level)) / 2
    if data.min() < 0 or data.max() > 1:
        raise InputError("a rate of values outside 0 to 1", expected="0 and 1, or shares between")
    n, value, effective, source = len(data), float(data.mean()), float(len(data)), unit
    groups = n
    if clusters is not None:
        sums, sizes = grouped(data, clusters)
        groups, source = len(sums), "clusters"
        if groups < 2:
            return spread_only(np.asarray([value]), source, least=2)
        effective = _effective(sums, sizes, value, tail)
    low, high = exact_ends(value * effective, effective, tail)
    p = None
    if margin is not None:
        p = two_sided_p(lambda side: exact_ends(value * effective, effective, side), value, margin)
    return Estimate(value, low, high, n, p, level, interval_label(level), (Source(source, groups, (high - low) / 2),))


def _effective(sums: Floats, sizes: Floats, value: float, tail: float) -> float:
    """How many independent values say as much as these clusters."""
    n, groups = float(sizes.sum()), len(sums)
    variance = float(np.var(pseudo_values(sums, sizes), ddof=1)) / groups
    alone = value * (1 - value) / n
    if alone == 0:  # nothing seen that could tell: as though each cluster were one value
        return float(groups)
    if variance == 0:
        return n
    few = student_factor(tail, n - 1) / student_factor(tail, groups - 1)
    return float(min(n, max(1.0, n * alone / variance * few**2)))
