"""Scaling, crossovers, equal budgets and fronts on curves whose answers are known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.studies.attention_derived import after_budget, crossover, exponent, front

LENGTHS = (256, 512, 1024, 2048, 4096)


def power_law(factor, power, noise=0.0, rounds=9, seed=0):
    generator = np.random.default_rng(seed)
    return {T: list(factor * T**power * np.exp(noise * generator.standard_normal(rounds))) for T in LENGTHS}


@settings(max_examples=25, deadline=None)
@given(power=st.floats(0.2, 3), factor=st.floats(1e-9, 1e3))
def test_the_exponent_of_a_power_law_is_its_own(power, factor):
    found = exponent(power_law(factor, power))
    assert (found.value, found.low, found.high) == pytest.approx((power, power, power), abs=1e-6)
    assert found.n == len(LENGTHS)


def test_the_interval_of_an_exponent_covers_it():
    covered = 0
    for seed in range(60):
        found = exponent(power_law(1e-6, 1.5, noise=0.1, seed=seed))
        covered += found.low <= 1.5 <= found.high
    assert covered >= 50


@settings(max_examples=15, deadline=None)
@given(at=st.floats(300, 4000))
def test_two_power_laws_cross_where_they_are_equal(at):
    ours, theirs = power_law(1.0, 1.0), power_law(1.0 / at, 2.0)  # equal at T = at, ours faster beyond
    met = crossover(ours, theirs)
    assert met.length.value == pytest.approx(at, rel=1e-6)
    assert met.ahead
    assert met.settled
    back = crossover(theirs, ours)
    assert back.length.value == pytest.approx(at, rel=1e-6)
    assert not back.ahead


def test_of_several_crossings_the_last_counts():
    ratios = dict(zip(LENGTHS, (2.0, 0.5, 2.0, 2.0, 0.5), strict=True))
    met = crossover({T: [r, r, r] for T, r in ratios.items()}, {T: [1.0, 1.0, 1.0] for T in LENGTHS})
    assert met.length.value == pytest.approx((2048 * 4096) ** 0.5)  # halfway, both axes logarithmic
    assert met.ahead


def test_who_is_ahead_throughout_never_crosses():
    met = crossover(power_law(1.0, 1.0), power_law(2.0, 1.0))
    assert (met.length, met.ahead, met.settled) == (None, True, True)
    met = crossover(power_law(2.0, 1.0), power_law(1.0, 1.0))
    assert (met.length, met.ahead, met.settled) == (None, False, True)


def test_a_crossing_within_the_noise_is_not_settled():
    ours, theirs = power_law(1.0, 1.0, noise=0.3, seed=1), power_law(1.0, 1.0, noise=0.3, seed=2)
    assert not crossover(ours, theirs).settled


def test_a_crossover_pairs_rounds():
    """Drift that hits both alike leaves the paired ratio alone."""
    drift = [1.0, 5.0, 0.2]
    ours = {T: [1.0 * T * d for d in drift] for T in LENGTHS}
    theirs = {T: [T**2 / 1000 * d for d in drift] for T in LENGTHS}
    met = crossover(ours, theirs)
    assert (met.length.low, met.length.high) == pytest.approx((1000, 1000))


def test_a_budget_buys_steps_and_the_curve_tells_the_loss():
    curves = [[[10, 4.0], [20, 2.0]], [[10, 5.0], [20, 3.0]]]
    spent = after_budget(curves, cost_a_step=2.0, budget=30.0)
    assert spent.steps == 15.0
    assert (spent.loss.value, spent.loss.low, spent.loss.high, spent.loss.n) == (3.5, 3.0, 4.0, 2)
    rich = after_budget(curves, cost_a_step=0.1, budget=30.0)
    assert (rich.steps, rich.loss.value) == (20, 2.5)  # nobody is trained longer than it was


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_front_is_what_nothing_beats(points):
    kept = front(points)
    for name, other in itertools.product(points, points):
        beaten = points[other] != points[name] and all(a <= b for a, b in zip(points[other], points[name], strict=True))
        assert not (beaten and name in kept)
    for name in set(points) - set(kept):
        assert any(all(a <= b for a, b in zip(points[k], points[name], strict=True)) for k in kept)
