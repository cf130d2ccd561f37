"""Many findings are many chances to be wrong: Holm's correction, verdicts, and what more data would do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import ceil, isfinite, sqrt
from typing import Literal

import numpy as np

from deadweight.errors import InputError
from deadweight.statistics.estimate import LEVEL, Estimate, Source, student_factor

Verdict = Literal["dead weight", "needed", "undecided"]
MOST = 1000  # times as many: nobody brings more, and no estimate stays where it is that long


def holm(p_values: Sequence[float | None]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given; None (no honest test) counts as 1.

    As statsmodels' ``multipletests``, which runs a full garbage collection at every call: up to 50 ms for 30 p-values.

    Examples
    --------
    >>> holm([0.01, None, 0.04])
    [0.03, 1.0, 0.08]
    """
    given = np.asarray([1.0 if p is None else p for p in p_values], dtype=np.float64)
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)))
    return [float(p) for p in adjusted]


def verdict(estimate: Estimate, margin: float, adjusted_p: float | None = None) -> Verdict:
    """What a loss from removal says, once p is adjusted for the other findings of the study.

    *dead weight* where the whole interval lies below the margin, *needed* where it lies above, both only with
    adjusted p <= 0.05; else *undecided*. So is every range, and every estimate without a p of its own.

    Parameters
    ----------
    estimate:
        Of the loss, its p against this very margin.
    adjusted_p:
        From :func:`holm` over all judged findings; None: there is no other.

    Examples
    --------
    >>> verdict(Estimate(0.0, -0.004, 0.004, 900, p=0.001), 0.01, adjusted_p=0.03)
    'dead weight'
    >>> verdict(Estimate(0.0, -0.004, 0.004, 3, None, 0.0, "range of 3 seeds"), 0.01)
    'undecided'
    """
    if not estimate.covers or estimate.p is None:
        return "undecided"
    if max(estimate.p, estimate.p if adjusted_p is None else adjusted_p) > 1 - LEVEL + 1e-12:
        return "undecided"
    if estimate.high is not None and estimate.high < margin:
        return "dead weight"
    return "needed" if estimate.low is not None and estimate.low > margin else "undecided"


def verdicts(estimates: Sequence[Estimate], margins: Sequence[float]) -> list[Verdict]:
    """Of all judged findings of one study together: Holm once, then :func:`verdict`."""
    adjusted = holm([estimate.p for estimate in estimates])
    return [verdict(*one) for one in zip(estimates, margins, adjusted, strict=True)]


def needed(estimate: Estimate, margin: float, tests: int = 1) -> dict[str, int] | None:
    """How many of what would settle an undecided estimate, should its value stay where it is.

    Parameters
    ----------
    estimate:
        With `sources`.
    margin:
        What it is held against.
    tests:
        Judged findings of the study: the first must clear Bonferroni's level, 0.05 / tests.

    Returns
    -------
    dict
        From a source's name to how many there would have to be, for those that must grow: always first the one that
        dominates. Empty where nothing must. None where `MOST` times as many would not do, or nobody can say.

    Raises
    ------
    InputError
        `tests` below 1.

    Examples
    --------
    >>> loss = Estimate(0.0, -0.02, 0.02, 200, 0.3, sources=(Source("items", 200, 0.02),))
    >>> needed(loss, 0.01)
    {'items': 810}
    """
    if tests < 1:
        raise InputError(f"{tests} tests", expected="at least one")
    short = {source.name: source.least for source in estimate.sources if source.half is None}
    if short:
        return {name: max(least, _have(estimate, name) + 1) for name, least in short.items()}
    gap = abs(estimate.value - margin)
    if not estimate.sources or not isfinite(gap) or gap == 0:
        return None
    tail = (1 - (estimate.level or LEVEL)) / 2
    counts = [source.n for source in estimate.sources]
    halves = [_shrunk(*one, tail, tests) for one in zip(estimate.sources, counts, strict=True)]
    while sqrt(sum(half**2 for half in halves)) > gap:
        at = int(np.argmax(halves))
        source = estimate.sources[at]
        counts[at] = max(counts[at] + 1, ceil(counts[at] * 1.02))
        if counts[at] > MOST * source.n:
            return None
        halves[at] = _shrunk(source, counts[at], tail, tests)
    return {
        source.name: _two_digits(count)
        for source, count in zip(estimate.sources, counts, strict=True)
        if count > source.n
    }


def _have(estimate: Estimate, name: str) -> int:
    return next(source.n for source in estimate.sources if source.name == name)


def _shrunk(source: Source, count: int, tail: float, tests: int) -> float:
    """Half a source's width with `count` of them, at the level that the first of `tests` must clear."""
    assert source.half is not None
    then, now = student_factor(tail / tests, max(1, count - 1)), student_factor(tail, max(1, source.n - 1))
    return float(source.half * sqrt(source.n / count) * then / now)


def _two_digits(count: int) -> int:
    """An estimate is not known better."""
    size: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // size) * size


def simultaneous(estimates: int, level: float = LEVEL) -> float:
    """Bonferroni's level: intervals of it hold for all of `estimates` at once, so also for the best of them.

    >>> simultaneous(8)
    0.99375
    """
    if estimates < 1:
        raise InputError(f"{estimates} estimates", expected="at least one")
    return 1 - (1 - level) / estimates


def chosen(estimate: Estimate, among: int, level: float = LEVEL) -> Estimate:
    """The estimate of the best of many, computed at :func:`simultaneous` level, labelled for what it is.

    Where the interval would be only a range it is left out: the range of what was chosen for being low says nothing.
    """
    if not estimate.covers:
        label = f"no interval: chosen among {among}"
        return dataclasses.replace(estimate, low=None, high=None, p=None, level=0.0, label=label)
    return dataclasses.replace(
        estimate, level=level, p=None, label=f"{100 * level:.3g} % interval, for the best of {among}"
    )


__all__ = ["MOST", "Verdict", "chosen", "holm", "needed", "simultaneous", "verdict", "verdicts"]
