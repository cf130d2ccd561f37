"""Medians of rounds by order statistics, ratios paired by round."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from deadweight.errors import InputError
from deadweight.statistics import least_rounds, median, ratio


@pytest.mark.parametrize("n", range(6, 21))
def test_the_interval_lies_between_order_statistics_that_hold_95_percent(n):
    """Brute force: each value lies below the true median with probability one half."""
    found = median(np.arange(n, dtype=float))
    held = sum(stats.binom.pmf(k, n, 0.5) for k in range(n + 1) if found.low <= k - 0.5 <= found.high)
    tighter = sum(stats.binom.pmf(k, n, 0.5) for k in range(n + 1) if found.low + 1 <= k - 0.5 <= found.high - 1)
    assert held >= 0.95 > tighter
    assert found.covers


def test_six_rounds_are_the_first_to_reach_95_percent():
    missed = [sum(len(set(signs)) == 1 for signs in product("+-", repeat=n)) / 2**n for n in range(1, 8)]
    assert least_rounds() == 1 + next(i for i, share in enumerate(missed) if share <= 0.05) == 6


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fewer_show_their_range(n):
    found = median(list(range(n)), margin=7.0)
    assert (found.low, found.high, found.label, found.covers, found.p) == (
        0.0, n - 1.0, f"range of {n} rounds", False, None,
    )  # fmt: skip


def test_one_round_has_no_width():
    found = median([2.5])
    assert (found.value, found.low, found.high, found.label) == (2.5, None, None, "one measurement")


@pytest.mark.parametrize("n", [6, 7, 13, 20])
def test_p_is_the_sign_tests_and_agrees_with_the_interval(n):
    values = np.random.default_rng(n).lognormal(size=n)
    found = median(values)
    for margin in (*(np.sort(values) * 1.0001), found.low * 0.999, found.high * 1.001):
        p = median(values, margin).p
        assert p == pytest.approx(stats.binomtest(int((values < margin).sum()), n).pvalue)
        assert (p <= 0.05) == (margin < found.low or margin > found.high)


def test_rounds_that_equal_the_margin_count_for_neither_side():
    assert median([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], 1.0).p == 1.0


def test_a_busy_machine_cancels_in_a_ratio():
    load = [1.0, 3.0, 2.0, 8.0, 1.5, 4.0]
    found = ratio([2 * x for x in load], load)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize("wrong", [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([], [])])
def test_what_has_no_ratio_is_refused(wrong):
    with pytest.raises(InputError):
        ratio(*wrong)
