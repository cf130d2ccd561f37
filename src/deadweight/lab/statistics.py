"""The intervals of before, for the code that still uses them; :mod:`deadweight.statistics` has those that cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from deadweight.errors import InputError
from deadweight.statistics import LEVEL, Numbers, holm
from deadweight.statistics import Estimate as StatisticsEstimate
from deadweight.statistics.estimate import Floats


@dataclass(frozen=True)
class Estimate(StatisticsEstimate):
    """Of the functions here, which always have both ends; infinite where the data cannot bound them (one seed)."""

    low: float
    high: float


def _paired(before: Numbers, after: Numbers) -> Floats:
    one, two = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or not len(one):
        raise InputError(
            f"paired values of shapes {one.shape} and {two.shape}", expected="two equally long, non-empty lists"
        )
    return one - two


def paired_t(before: Numbers, after: Numbers, margin: float = 0.0, *, resolution: float = 0.0) -> Estimate:
    """Mean of before − after over pairs (seeds) with Student's interval.

    `resolution` is the step of the measurement (1 / items for an accuracy): a spread below what rounding alone
    would give, resolution/√12, is taken as that, so that three equal seeds do not look like certainty.
    """
    loss = _paired(before, after)
    n, value = len(loss), float(loss.mean())
    if n < 2:
        return Estimate(value, -np.inf, np.inf, n, 1.0)
    spread = max(float(loss.std(ddof=1)), resolution / np.sqrt(12)) / np.sqrt(n)
    if spread == 0:
        return Estimate(value, value, value, n, 0.0 if value != margin else 1.0)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread
    p = 2 * float(stats.t.sf(abs(value - margin) / spread, n - 1))
    return Estimate(value, value - half, value + half, n, p)


def accuracy_loss(before: Numbers, after: Numbers, margin: float = 0.0) -> Estimate:
    """Loss of accuracy over the same items, from right/wrong pairs, or from each item's share of right answers.

    The interval is Agresti and Min's (2005): half an item is added to each cell of the paired 2 × 2 table, so that
    no change at all still leaves the doubt the number of items deserves.
    """
    loss = _paired(before, after)
    n = len(loss)
    total, squares = float(loss.sum()), float((loss**2).sum()) + 1  # 1: half an item worse, half an item better
    centre = total / (n + 2)
    error = np.sqrt(squares - total**2 / (n + 2)) / (n + 2)
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    p = 2 * float(stats.norm.sf(abs(centre - margin) / error))
    return Estimate(float(loss.mean()), float(centre - half), float(centre + half), n, p)


def bootstrap_mean(
    values: Numbers,
    margin: float = 0.0,
    *,
    clusters: Sequence[int | str] | None = None,
    seed: int = 0,
    rounds: int = 4000,
) -> Estimate:
    """Mean with a percentile bootstrap interval; whole clusters are drawn where given (seeds, items).

    Values that are all alike carry no spread to resample. A share of at least h of other values would have shown
    itself among n but for a chance of (1 − h)ⁿ, so the interval is ± 3.69/n (the two-sided rule of three), for
    values between −1 and 1 as differences of right/wrong are.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n == 0:
        raise InputError("no values to average", expected="at least one")
    value = float(data.mean())
    if np.ptp(data) == 0:
        half = min(1.0, -float(np.log((1 - LEVEL) / 2)) / n)
        p = min(1.0, 2 * (1 - min(1.0, abs(value - margin))) ** n)
        return Estimate(value, value - half, value + half, n, p)
    labels = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups = int(labels.max()) + 1
    sums, sizes = np.bincount(labels, weights=data), np.bincount(labels)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, groups, size=(rounds, groups))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = (float(end) for end in np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    tail = min(int((means <= margin).sum()), int((means >= margin).sum()))
    return Estimate(value, low, high, n, min(1.0, 2 * (tail + 1) / (rounds + 1)))


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's interval; the one-sided rule of three where nothing, or everything, was counted."""
    if not 0 <= successes <= n or n == 0:
        raise InputError(f"{successes} of {n}", expected="0 <= successes <= n and n > 0")
    low, high = (float(end) for end in proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson"))
    if successes == 0:
        low, high = 0.0, min(1.0, 3 / n)
    elif successes == n:
        low, high = max(0.0, 1 - 3 / n), 1.0
    return Estimate(successes / n, low, high, n)


__all__ = ["LEVEL", "Estimate", "accuracy_loss", "bootstrap_mean", "holm", "paired_t", "wilson"]
