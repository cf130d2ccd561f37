"""What is derived from timed rounds and loss curves: exponents, crossovers, equal budgets, fronts. All of it ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadweight.errors import InputError
from deadweight.statistics.estimate import Estimate, Numbers, numbers, spread_only
from deadweight.statistics.timing import median, ratio

Floats = npt.NDArray[np.float64]


def exponent(rounds: Mapping[int, Numbers]) -> Estimate:
    """p of the power law seconds ~ Tᵖ: the slope of least squares through (log T, log seconds).

    Parameters
    ----------
    rounds:
        By length T, the seconds of each round; at least two lengths. The first round of every length is taken
        together, the second, and so on, as far as the length with the fewest goes.

    Returns
    -------
    Estimate
        The :func:`median` of the rounds' slopes, n rounds. It says how well the slope over these lengths is known, not
        that a power law holds between or beyond them.

    Raises
    ------
    InputError
        Fewer than two lengths, or times that are not positive.

    Examples
    --------
    >>> exponent({128: [1.0, 1.1], 256: [2.0, 2.2], 512: [4.0, 4.4]}).value
    1.0
    """
    lengths = sorted(rounds)
    if len(lengths) < 2:
        raise InputError(f"times at {len(lengths)} lengths", expected="at least two lengths")
    fewest = min(len(rounds[length]) for length in lengths)
    seconds = np.stack([numbers(rounds[length])[:fewest] for length in lengths])
    if seconds.min() <= 0:
        raise InputError("times that are not positive", expected="seconds above 0")
    centred = np.log(lengths) - np.log(lengths).mean()
    slopes = (centred / (centred**2).sum()) @ np.log(seconds)
    return median(np.round(slopes, 12))


@dataclass(frozen=True)
class Crossover:
    """Where one mechanism's time meets another's.

    length:  tokens at the crossing, log-interpolated between the timed lengths around it; None where there is none.
             low and high are the timed lengths nearest to it at which one side is surely faster than the other.
    ahead:   faster from the crossing on; without a crossing: faster throughout.
    settled: one side is surely faster at the timed lengths on both sides, or, without a crossing, at all.
    """

    length: Estimate | None
    ahead: bool
    settled: bool


def crossover(ours: Mapping[int, Numbers], theirs: Mapping[int, Numbers]) -> Crossover:
    """The last length at which the paired ratio ours / theirs passes through 1, and which way.

    Fewer than six rounds settle nothing: :func:`ratio` has no interval then.

    Examples
    --------
    >>> found = crossover({64: [2.0] * 6, 256: [1.0] * 6}, {64: [1.0] * 6, 256: [2.0] * 6})
    >>> round(found.length.value), found.length.low, found.length.high, found.ahead, found.settled
    (128, 64.0, 256.0, True, True)
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise InputError("no length that both were timed at", expected="at least one")
    ratios = [ratio(ours[length], theirs[length], 1.0) for length in shared]
    sides = [_surely(one) for one in ratios]
    values = np.log([one.value for one in ratios])
    place = _crossing(values)
    if place is None:
        return Crossover(None, bool(values[-1] < 0), len(set(sides)) == 1 and sides[0] != 0)
    x = np.log(shared)
    at = x[place] - values[place] * (x[place + 1] - x[place]) / (values[place + 1] - values[place])
    before = next((shared[i] for i in range(place, -1, -1) if sides[i] == (1 if values[place] >= 0 else -1)), None)
    after = next((shared[i] for i in range(place + 1, len(shared)) if sides[i] == (1 if values[-1] >= 0 else -1)), None)
    rounds = min(one.n for one in ratios)
    sure = before is not None and after is not None
    label = "between the timed lengths that are settled" if sure else f"not settled by {rounds} rounds"
    length = Estimate(
        float(np.exp(at)), None if before is None else float(before), None if after is None else float(after),
        rounds, None, 0.95 if sure else 0.0, label, ratios[place].sources,
    )  # fmt: skip
    return Crossover(length, bool(values[place + 1] < 0), bool(sides[place] * sides[place + 1] < 0))


def _surely(estimate: Estimate) -> int:
    """−1 faster, 1 slower, 0 not known."""
    if not estimate.covers or estimate.low is None or estimate.high is None:
        return 0
    return -1 if estimate.high < 1 else 1 if estimate.low > 1 else 0


def _crossing(y: Floats) -> int | None:
    """Index before the last change of sign."""
    changes = np.nonzero((y[:-1] < 0) != (y[1:] < 0))[0]
    return int(changes[-1]) if len(changes) else None


@dataclass(frozen=True)
class Budget:
    """Mean loss over seeds once a budget is spent, and the steps that took."""

    steps: float
    loss: Estimate


def after_budget(curves: Sequence[Sequence[Sequence[float]]], cost_per_step: float, budget: float) -> Budget:
    """Loss after as many steps as `budget` buys at `cost_per_step`, read off the held-out curves of several seeds.

    Parameters
    ----------
    curves:
        One for each seed: points (steps done, loss). Between them the loss is interpolated; before the first and
        after the last it is that point's.

    Returns
    -------
    Budget
        The loss's low and high are the seeds' range and called that, for they are few; of one seed there are none.

    Examples
    --------
    >>> found = after_budget([[(0, 4.0), (100, 2.0)], [(0, 4.0), (100, 3.0)]], cost_per_step=2.0, budget=100.0)
    >>> found.steps, found.loss.value, found.loss.label
    (50.0, 3.25, 'range of 2 seeds')
    """
    if not curves or any(not len(curve) for curve in curves) or cost_per_step <= 0:
        raise InputError("no curve to read the loss off", expected="at least one seed's points and a cost above 0")
    steps = min(budget / cost_per_step, max(float(point[0]) for point in curves[0]))
    losses = np.asarray([np.interp(steps, [p[0] for p in curve], [p[1] for p in curve]) for curve in curves])
    found = spread_only(losses, "seeds", least=2)
    return Budget(steps, found if len(losses) > 1 else dataclasses.replace(found, label="one seed"))


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names that no other beats on both numbers (lower is better), by the first number: the Pareto front.

    >>> front({"a": (1.0, 3.0), "b": (2.0, 2.0), "c": (3.0, 2.5)})
    ['a', 'b']
    """
    kept = [
        name
        for name, (cost, loss) in points.items()
        if not any(c <= cost and q <= loss and (c < cost or q < loss) for c, q in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])
