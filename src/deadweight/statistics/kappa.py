"""Agreement beyond chance."""

from __future__ import annotations

from math import isfinite

import numpy as np
import numpy.typing as npt

from deadweight.errors import InputError
from deadweight.statistics.crossed import interval_of, together, within
from deadweight.statistics.estimate import LEVEL, Estimate, Floats, Source, check_level
from deadweight.statistics.inversion import Ends
from deadweight.statistics.proportions import effective_share, exact_ends


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
        return within(interval_of(value, rows, size, margin, level, (Source(units[0], len(tables)),)), -1.0, 1.0)
    columns = tables.shape[1] * value - (tables.shape[1] - 1) * _kappa(whole - tables.sum(0))
    found = together(value, rows, columns, _kappa(tables.sum(0)), len(tables), margin, level, units)
    return within(found, -1.0, 1.0)


def _agreement_of(shares: Floats, value: float, chance: float) -> Ends:
    """Ends of κ from the exact ones of the share that agrees, the frequencies held as they are (Cohen 1960)."""
    count, n = effective_share(shares)

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
