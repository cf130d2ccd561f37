"""What is derived from timed rounds and loss curves: scaling, crossovers, equal budgets, fronts. All of it ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadweight.lab import Estimate

BOOTSTRAP = 4000
Floats = npt.NDArray[np.float64]


def _medians(rounds: Mapping[int, Sequence[float]], seed: int) -> tuple[Floats, Floats, Floats]:
    """Lengths (L), the medians there (L), and those of resampled rounds (BOOTSTRAP, L)."""
    lengths = sorted(rounds)
    generator = np.random.default_rng(seed)
    found, drawn = [], []
    for length in lengths:
        data = np.asarray(rounds[length], dtype=np.float64)
        found.append(np.median(data))
        drawn.append(np.median(data[generator.integers(0, len(data), (BOOTSTRAP, len(data)))], axis=1))
    return np.asarray(lengths, dtype=np.float64), np.asarray(found), np.stack(drawn, axis=1)


def exponent(rounds: Mapping[int, Sequence[float]], *, seed: int = 0) -> Estimate:
    """p of the power law seconds ~ Tᵖ, the slope of least squares through (log T, log median seconds).

    rounds: by length, at least two of them. The interval resamples rounds within each length; it says how well the
    slope over these lengths is known, not that a power law holds between or beyond them.
    """
    lengths, medians, drawn = _medians(rounds, seed)
    centred = np.log(lengths) - np.log(lengths).mean()
    weights = centred / (centred**2).sum()
    low, high = np.quantile(np.log(drawn) @ weights, [0.025, 0.975])
    return Estimate(float(np.log(medians) @ weights), float(low), float(high), len(lengths))


@dataclass(frozen=True)
class Crossover:
    """Where one mechanism's time meets another's.

    length:  tokens at the crossing, log-interpolated between the timed lengths around it; None where there is none.
    ahead:   faster from the crossing on; without a crossing: faster throughout.
    settled: the ratio's interval excludes 1 at the timed lengths on both sides, or, without a crossing, at all.
    """

    length: Estimate | None
    ahead: bool
    settled: bool


def crossover(
    ours: Mapping[int, Sequence[float]], theirs: Mapping[int, Sequence[float]], *, seed: int = 0
) -> Crossover:
    """The last length at which the paired ratio ours / theirs passes through 1, and which way."""
    shared = sorted(set(ours) & set(theirs))
    ratios = {T: [a / b for a, b in zip(ours[T], theirs[T], strict=True)] for T in shared}
    lengths, medians, drawn = _medians(ratios, seed)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    sure = (high < 1) | (low > 1)
    at = _crossing(np.log(lengths), np.log(medians))
    if at is None:
        return Crossover(None, bool(medians[-1] < 1), bool(sure.all()))
    place, value = at
    found = [_crossing(np.log(lengths), row) for row in np.log(drawn)]
    where = np.exp([one[1] for one in found if one is not None])
    ends = np.quantile(where, [0.025, 0.975])
    estimate = Estimate(float(np.exp(value)), float(ends[0]), float(ends[1]), len(shared))
    return Crossover(estimate, bool(medians[place + 1] < 1), bool(sure[place] and sure[place + 1]))


def _crossing(x: Floats, y: Floats) -> tuple[int, float] | None:
    """(index before, place) of the last change of sign of y over x, linear between points."""
    changes = np.nonzero((y[:-1] < 0) != (y[1:] < 0))[0]
    if not len(changes):
        return None
    i = int(changes[-1])
    return i, float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


@dataclass(frozen=True)
class Budget:
    """Mean loss over seeds once a budget is spent, and the steps that took."""

    steps: float
    loss: Estimate


def after_budget(curves: Sequence[Sequence[Sequence[float]]], cost_a_step: float, budget: float) -> Budget:
    """Loss after as many steps as `budget` buys at `cost_a_step`, read off the held-out curves of several seeds.

    curves: a seed each, points (steps done, loss); between them the loss is interpolated, before the first and after
    the last it is that point's. The interval is the seeds' range, for they are few.
    """
    steps = min(budget / cost_a_step, max(float(point[0]) for point in curves[0]))
    losses = [
        float(np.interp(steps, [point[0] for point in curve], [point[1] for point in curve])) for curve in curves
    ]  # fmt: skip
    return Budget(steps, Estimate(float(np.mean(losses)), min(losses), max(losses), len(losses)))


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names that no other beats on both numbers (lower is better), by the first number: the Pareto front."""
    kept = [
        name
        for name, (cost, loss) in points.items()
        if not any(c <= cost and q <= loss and (c < cost or q < loss) for c, q in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])
