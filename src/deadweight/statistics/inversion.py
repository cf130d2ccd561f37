"""A p-value from an interval: the level at which the margin comes to lie on an end."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

from scipy.optimize import brentq

SMALLEST = 1e-12  # on one side; smaller ones are not told apart
Ends = Callable[[float], tuple[float, float]]


def two_sided_p(ends: Ends, value: float, margin: float) -> float:
    """Twice the share `tail` for which the margin lies on an end of ``ends(tail)``, at most 1.

    ends: from the error allowed on each side to (low, high), wider for smaller tails. So p <= 2 · tail exactly where
    the margin lies outside ``ends(tail)``.
    """
    side = 1 if margin >= value else 0

    def short_of(tail: float) -> float:
        """Positive while the margin lies outside."""
        distance = ends(tail)[side] - margin
        return -distance if side else distance

    if short_of(0.5) <= 0:
        return 1.0
    if short_of(SMALLEST) > 0:
        return 2 * SMALLEST
    return min(1.0, 2 * exp(brentq(lambda x: short_of(exp(x)), log(SMALLEST), log(0.5), xtol=1e-10)))
