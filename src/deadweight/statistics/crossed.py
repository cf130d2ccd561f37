"""Items crossed with seeds or sets of demonstrations: both were sampled, so both are in the interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import hypot, isfinite, sqrt

import numpy as np
import numpy.typing as npt

from deadweight.errors import InputError
from deadweight.statistics.clusters import pseudo_values
from deadweight.statistics.estimate import (
    LEVEL,
    Estimate,
    Floats,
    Source,
    check_level,
    interval_label,
    spread_only,
    student_factor,
)
from deadweight.statistics.inversion import Ends, two_sided_p
from deadweight.statistics.means import Moments
from deadweight.statistics.proportions import difference_ends, effective_changes, effective_share, exact_ends

Part = Callable[[Floats, Floats, float], Ends | None]  # sums and counts by item, value -> ends of the items' part
LEAST = 3  # of two sets Student's factor is 12.7: an interval that has never settled anything


def two_way_mean(
    values: npt.ArrayLike,
    margin: float | None = None,
    *,
    shares: bool = True,
    level: float = LEVEL,
    units: tuple[str, str] = ("items", "sets of demonstrations"),
) -> Estimate:
    """Mean over items (rows) and sets or seeds (columns), for items like these and sets like these.

    Parameters
    ----------
    values:
        (items, sets); NaN where a cell does not count. The mean is over all cells that count.
    margin:
        The value that p is computed against; None for no p.
    shares:
        Whether the values are right/wrong, shares, or differences of those, between −1 and 1: the items' part is
        then that of :func:`accuracy_loss`, which holds also where few items change. Otherwise that of :func:`mean`.
    units:
        What rows and columns are called.

    Returns
    -------
    Estimate
        Each way of sampling has an interval of its own, the other held as it is: the items' as said, the sets' by
        Student's t over the jackknife's pseudo-values of the sets. Their half widths add in squares (Donner and Zou
        2012), which is wider than Satterthwaite's degrees of freedom would have it and, unlike these, holds for three
        sets. `sources` say what each adds. With two sets low and high are only their range; with one set they are
        about other items and this very set, and there is no p.

    Raises
    ------
    InputError
        Not a matrix, no cell that counts, infinite values, or shares outside −1 to 1.

    Examples
    --------
    >>> found = two_way_mean([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]] * 20)
    >>> round(found.value, 3), found.limited_by.name
    (0.333, 'sets of demonstrations')
    """
    data = _cells(values)
    if shares and np.nanmax(np.abs(data)) > 1:
        raise InputError("shares outside −1 to 1", expected="right/wrong or shares", cure="say shares=False")
    if not shares:
        return _two_way(data, _skewed, margin, level, units)
    return within(_two_way(data, _differences, margin, level, units), -1.0, 1.0)


def two_way_rate(
    bits: npt.ArrayLike,
    margin: float | None = None,
    *,
    level: float = LEVEL,
    units: tuple[str, str] = ("items", "sets of demonstrations"),
) -> Estimate:
    """A share of right answers, or of any yes or no, over items and sets: :func:`two_way_mean` kept within 0 and 1.

    Parameters
    ----------
    bits:
        (items, sets) 0 or 1, NaN where a cell does not count.

    Raises
    ------
    InputError
        As :func:`two_way_mean`, or values outside 0 to 1.

    Examples
    --------
    >>> found = two_way_rate([[1, 1, 1]] * 30)
    >>> found.value, round(found.low, 2), found.high
    (1.0, 0.88, 1.0)
    """
    data = _cells(bits)
    if np.nanmin(data) < 0 or np.nanmax(data) > 1:
        raise InputError("a rate of values outside 0 to 1", expected="0 and 1, or shares between")
    return within(_two_way(data, _rates, margin, level, units), 0.0, 1.0)


def within(estimate: Estimate, least: float, most: float) -> Estimate:
    """Ends cut at what the quantity can be."""
    low = None if estimate.low is None else max(least, estimate.low)
    high = None if estimate.high is None else min(most, estimate.high)
    return dataclasses.replace(estimate, low=low, high=high)


def _cells(values: npt.ArrayLike) -> Floats:
    """(items, sets) without rows and columns of which nothing counts."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2:
        raise InputError(f"values of shape {data.shape}", expected="a matrix: items by sets or seeds")
    if np.isinf(data).any():
        raise InputError("infinite values", expected="numbers, NaN where a cell does not count")
    counted = np.isfinite(data)
    data = data[counted.any(1)][:, counted.any(0)]
    if not data.size:
        raise InputError("no cell that counts", expected="at least one number")
    return data


def _two_way(data: Floats, part: Part, margin: float | None, level: float, units: tuple[str, str]) -> Estimate:
    check_level(level)
    counted = np.isfinite(data).astype(np.float64)
    filled = np.where(counted > 0, data, 0.0)
    value = float(filled.sum() / counted.sum())
    by_set = filled.sum(0) / counted.sum(0)
    rows = part(filled.sum(1), counted.sum(1), value)
    if rows is None:
        return Estimate(value, None, None, len(data), None, 0.0, f"all {len(data)} {units[0]} alike")
    columns = pseudo_values(filled.sum(0), counted.sum(0)) if len(by_set) > 1 else by_set
    return together(value, rows, columns, by_set, len(data), margin, level, units)


def _differences(sums: Floats, counts: Floats, value: float) -> Ends:
    """Ends for other items and these sets, moved to `value` where cells are missing."""
    worse, better, n = effective_changes(sums / counts)
    shift = value - (worse - better) / n

    def ends(tail: float) -> tuple[float, float]:
        low, high = difference_ends(worse, better, n, tail)
        return low + shift, high + shift

    return ends


def _rates(sums: Floats, counts: Floats, value: float) -> Ends:
    count, n = effective_share(sums / counts)

    def ends(tail: float) -> tuple[float, float]:
        low, high = exact_ends(count, n, tail)
        return low + value - count / n, high + value - count / n

    return ends


def _skewed(sums: Floats, counts: Floats, value: float) -> Ends | None:
    if len(sums) < 2:
        return None
    found = Moments.of(pseudo_values(sums, counts), value)
    return found.ends if found.deviation > 0 else None


def together(
    value: float,
    rows: Ends,
    columns: Floats,
    by_set: Floats,
    items: int,
    margin: float | None,
    level: float,
    units: tuple[str, str],
) -> Estimate:
    """The items' ends and those of the sets, added in squares around `value`."""
    sets, tail = len(columns), (1 - level) / 2  # n counts items: sets are few, and are told apart in `sources`
    own = interval_of(value, rows, items, None, level, (Source(units[0], items),))
    if sets < LEAST:
        found = spread_only(by_set, units[1], least=LEAST, value=value)
        if sets == 1:  # the items' interval stands, about this set alone
            label = f"{interval_label(level)}, for this one of the {units[1]}"
            return dataclasses.replace(own, label=label, sources=(*own.sources, *found.sources))
        return dataclasses.replace(found, n=items, sources=(*own.sources, *found.sources))
    error = float(columns.std(ddof=1)) / sqrt(sets)

    def ends(side: float) -> tuple[float, float]:
        down, up = rows(side)
        half = student_factor(side, sets - 1) * error
        return value - hypot(value - down, half), value + hypot(up - value, half)

    source = Source(units[1], sets, student_factor(tail, sets - 1) * error, LEAST)
    return interval_of(value, ends, items, margin, level, (own.sources[0], source))


def interval_of(
    value: float, ends: Ends, n: int, margin: float | None, level: float, sources: tuple[Source, ...]
) -> Estimate:
    """With p by inversion; a single source gets the whole half width."""
    low, high = ends((1 - level) / 2)
    p = None if margin is None else two_sided_p(ends, value, margin)
    if len(sources) == 1:
        half = (high - low) / 2
        sources = (dataclasses.replace(sources[0], half=half if isfinite(half) else None),)
    bounds = (low if isfinite(low) else None), (high if isfinite(high) else None)
    return Estimate(value, *bounds, n, p, level, interval_label(level), sources)
