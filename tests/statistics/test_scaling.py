"""Exponents, crossovers, equal budgets and fronts."""

import numpy as np
import pytest

from deadweight.errors import InputError
from deadweight.statistics import after_budget, crossover, exponent, front

LENGTHS = (64, 256, 1024, 4096)


def test_an_exponent_is_numpys_slope():
    generator = np.random.default_rng(0)
    rounds = {T: T**1.7 * generator.lognormal(0, 0.05, 7) for T in LENGTHS}
    slopes = [np.polyfit(np.log(LENGTHS), np.log([rounds[T][i] for T in LENGTHS]), 1)[0] for i in range(7)]
    found = exponent(rounds)
    assert found.value == pytest.approx(np.median(slopes))
    assert (found.low, found.high) == pytest.approx((min(slopes), max(slopes)))
    assert (found.n, found.label) == (7, "95 % interval")


def test_n_is_rounds_and_few_of_them_have_only_a_range():
    found = exponent({T: [1.0 * T, 1.1 * T, 0.9 * T] for T in LENGTHS})
    assert (found.n, found.label, found.covers) == (3, "range of 3 rounds", False)


def test_a_crossover_lies_between_the_lengths_that_are_settled():
    slow, fast = {T: [T**2.0] * 6 for T in LENGTHS}, {T: [300.0 * T] * 6 for T in LENGTHS}
    found = crossover(slow, fast)
    assert found.length.value == pytest.approx(300)
    assert (found.length.low, found.length.high, found.ahead, found.settled) == (256, 1024, False, True)
    assert crossover(fast, slow).ahead


def test_three_rounds_settle_no_crossover():
    found = crossover({T: [T**2.0] * 3 for T in LENGTHS}, {T: [300.0 * T] * 3 for T in LENGTHS})
    assert not found.settled
    assert not found.length.covers
    assert (found.length.low, found.length.high, found.length.label) == (None, None, "not settled by 3 rounds")


def test_without_a_crossing_one_is_ahead_throughout():
    found = crossover({T: [1.0] * 6 for T in LENGTHS}, {T: [2.0] * 6 for T in LENGTHS})
    assert (found.length, found.ahead, found.settled) == (None, True, True)


def test_equal_budgets_tell_the_range_of_seeds_as_that():
    curves = [[(0, 4.0), (100, 2.0)], [(0, 4.0), (100, 3.0)], [(0, 4.0), (100, 2.5)]]
    found = after_budget(curves, cost_per_step=2.0, budget=100.0)
    assert (found.steps, found.loss.value, found.loss.low, found.loss.high) == (50.0, 3.25, 3.0, 3.5)
    assert (found.loss.label, found.loss.covers, found.loss.n) == ("range of 3 seeds", False, 3)
    one = after_budget(curves[:1], 2.0, 1e9)
    assert (one.steps, one.loss.low, one.loss.label) == (100.0, None, "one seed")


def test_the_front_keeps_what_no_other_beats():
    assert front({"a": (1, 3), "b": (2, 2), "c": (3, 2.5), "d": (1, 3), "e": (1, 4)}) == ["a", "d", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: exponent({64: [1.0]}),
        lambda: exponent({64: [1.0], 128: [0.0]}),
        lambda: crossover({64: [1.0]}, {128: [1.0]}),
        lambda: after_budget([], 1.0, 1.0),
    ],
)
def test_what_cannot_be_derived_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
