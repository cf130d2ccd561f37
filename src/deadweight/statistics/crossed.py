"""Items crossed with seeds or sets of demonstrations: both were sampled, so both are in the interval."""

from __future__ import annotations

import dataclasses
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
from deadweight.statistics.proportions import difference_ends, exact_ends

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
    check_level(level)
    data = _cells(values)
    counted = np.isfinite(data)
    filled = np.where(counted, data, 0.0)
    if shares and np.abs(filled).max() > 1:
        raise InputError("shares outside −1 to 1", expected="right/wrong or shares", cure="say shares=False")
    value = float(filled.sum() / counted.sum())
    by_set = filled.sum(0) / counted.sum(0)
    rows = _shares_of(filled.sum(1) / counted.sum(1), value) if shares else _skewed_of(filled, counted, value)
    if rows is None:
        return Estimate(value, None, None, data.size, None, 0.0, f"all {len(data)} {units[0]} alike")
    columns = pseudo_values(filled.sum(0), counted.sum(0)) if len(by_set) > 1 else by_set
    return _together(value, rows, columns, by_set, len(data), margin, level, units)


def cohen_kappa(
    answers: npt.ArrayLike,
    wanted: npt.ArrayLike,
    margin: float | None = 0.0,
    *,
    level: float = LEVEL,
    units: tuple[str, str] = ("items", "sets of demonstrations"),
) -> Estimate:
    """Cohen's κ (1960) between answers and wanted labels: agreement beyond that of labels drawn by their frequencies.

    Parameters
    ----------
    answers:
        (items,) or (items, sets) class numbers; −1 where an answer is no label: it does not count.
    wanted:
        (items,) class numbers.
    margin:
        The κ that p is computed against; 0 asks whether answers agree beyond chance.

    Returns
    -------
    Estimate
        1 is full agreement, 0 what frequencies alone give: somebody who answers one label whatever is asked has 0.
        The items' part of the interval is the exact one of the share that agrees, the frequencies held as they are
        (Cohen 1960), which is a little wide near 0; sets of demonstrations add to it as in :func:`two_way_mean`.
        None where answers and wanted labels are one and the same label throughout.

    Raises
    ------
    InputError
        Shapes that do not match, or no valid answer.

    Examples
    --------
    >>> wanted = [0, 1] * 40
    >>> cohen_kappa([0] * 80, wanted).value, cohen_kappa(wanted, wanted[:79] + [0]).p < 0.05
    (0.0, True)
    """
    check_level(level)
    given, gold = np.asarray(answers, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    crossed = given.ndim == 2
    given = given if crossed else given[:, None]
    if given.ndim != 2 or gold.shape != given.shape[:1] or not (given >= 0).any():
        raise InputError(f"answers {given.shape} for wanted labels {gold.shape}", expected="one wanted label per item")
    classes = int(max(given.max(), gold.max())) + 1
    tables = np.zeros((*given.shape, classes, classes))
    place = np.nonzero(given >= 0)
    tables[(*place, given[place], gold[place[0]])] = 1
    tables = tables[(given >= 0).any(1)][:, (given >= 0).any(0)]
    whole = tables.sum((0, 1))
    value = float(_kappa(whole))
    size = int(whole.sum())
    if not isfinite(value):
        return Estimate(value, None, None, size, None, 0.0, "undefined: one label only")
    shares = np.trace(tables.sum(1), axis1=-2, axis2=-1) / tables.sum((1, 2, 3))
    rows = _agreement_of(shares, value, _chance(whole))
    if not crossed:
        return _interval(value, rows, size, margin, level, (Source(units[0], len(tables)),))
    columns = tables.shape[1] * value - (tables.shape[1] - 1) * _kappa(whole - tables.sum(0))
    return _together(value, rows, columns, _kappa(tables.sum(0)), len(tables), margin, level, units)


def _agreement_of(shares: Floats, value: float, chance: float) -> Ends:
    """Ends of κ from the exact ones of the share that agrees, the frequencies held as they are (Cohen 1960)."""
    count, n = float(shares.sum()), len(shares)

    def ends(tail: float) -> tuple[float, float]:
        low, high = exact_ends(count, n, tail)
        return value - (count / n - low) / (1 - chance), value + (high - count / n) / (1 - chance)

    return ends


def _chance(table: Floats) -> float:
    return float(table.sum(1) @ table.sum(0) / table.sum() ** 2)


def _kappa(tables: Floats) -> Floats:
    """κ of (…, classes, classes) counts; NaN where frequencies leave no room for disagreement."""
    total = tables.sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / total
        chance = (tables.sum(-1) * tables.sum(-2)).sum(-1) / total**2
        result: Floats = np.where(chance < 1, (observed - chance) / np.where(chance < 1, 1 - chance, 1), np.nan)
    return result


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


def _shares_of(by_item: Floats, value: float) -> Ends:
    """Ends for other items and these sets, moved to `value` where cells are missing."""
    n = len(by_item)
    worse, better = float(np.clip(by_item, 0, None).sum()), float(np.clip(-by_item, 0, None).sum())
    shift = value - (worse - better) / n

    def ends(tail: float) -> tuple[float, float]:
        low, high = difference_ends(worse, better, n, tail)
        return low + shift, high + shift

    return ends


def _skewed_of(filled: Floats, counted: npt.NDArray[np.bool_], value: float) -> Ends | None:
    if len(filled) < 2:
        return None
    found = Moments.of(pseudo_values(filled.sum(1), counted.sum(1).astype(np.float64)), value)
    return found.ends if found.deviation > 0 else None


def _together(
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
    sets, size, tail = len(columns), items * len(columns), (1 - level) / 2
    own = _interval(value, rows, size, None, level, (Source(units[0], items),))
    if sets < LEAST:
        found = spread_only(by_set, units[1], least=LEAST, value=value)
        if sets == 1:  # the items' interval stands, about this set alone
            label = f"{interval_label(level)}, for this one of the {units[1]}"
            return dataclasses.replace(own, label=label, sources=(*own.sources, *found.sources))
        return dataclasses.replace(found, n=size, sources=(*own.sources, *found.sources))
    error = float(columns.std(ddof=1)) / sqrt(sets)

    def ends(side: float) -> tuple[float, float]:
        down, up = rows(side)
        half = student_factor(side, sets - 1) * error
        return value - hypot(value - down, half), value + hypot(up - value, half)

    source = Source(units[1], sets, student_factor(tail, sets - 1) * error, LEAST)
    return _interval(value, ends, size, margin, level, (own.sources[0], source))


def _interval(
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
