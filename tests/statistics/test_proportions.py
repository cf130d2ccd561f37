"""Rates and paired losses against statsmodels, scipy and sums over every table."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from deadweight.errors import InputError
from deadweight.statistics import accuracy_loss, rate
from deadweight.statistics.proportions import difference_ends


def bits(worse, better, same):
    return [1] * worse + [0] * better + [1] * same, [0] * worse + [1] * better + [1] * same


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 40), (20, 40), (359, 359)])
def test_a_rate_is_statsmodels_exact_interval(hits, n):
    found = rate([1] * hits + [0] * (n - hits))
    low, high = proportion_confint(hits, n, method="beta")
    assert (found.low, found.high) == pytest.approx((np.nan_to_num(low, nan=0), np.nan_to_num(high, nan=1)), abs=1e-12)
    assert found.value == hits / n


@pytest.mark.parametrize("worse", [0, 1, 7])
def test_where_nothing_gets_better_the_upper_end_is_the_exact_one_of_a_single_share(worse):
    found = accuracy_loss(*bits(worse, 0, 359 - worse))
    assert found.high == pytest.approx(stats.binomtest(worse, 359).proportion_ci(0.95, method="exact").high, abs=1e-7)


def test_swapping_before_and_after_mirrors_the_interval():
    before, after = bits(9, 3, 60)
    one, two = accuracy_loss(before, after, 0.0), accuracy_loss(after, before, 0.0)
    assert (one.low, one.high, one.p) == pytest.approx((-two.high, -two.low, two.p), rel=1e-9)


def test_against_no_loss_it_is_close_to_mcnemars_exact_test():
    found = accuracy_loss(*bits(30, 12, 300), margin=0.0)
    exact = stats.binomtest(30, 42).pvalue
    assert found.p == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize(
    ("n", "truths", "tail", "times"),
    [
        (12, [(0.01 + q, q) for q in np.linspace(0, 0.45, 10)], 0.025, 1.0),  # where verdicts are made
        (24, [(0.01 + q, q) for q in np.linspace(0, 0.45, 10)], 0.025, 1.05),
        (24, [(0.01 + q, q) for q in np.linspace(0, 0.45, 10)], 0.025 / 30, 1.3),  # among 30 blocks
        (12, [(p, q) for p in np.linspace(0, 1, 11) for q in np.linspace(0, 1 - p, 6)], 0.025, 1.4),  # anywhere
    ],
)
def test_no_table_of_a_small_sample_makes_an_end_wrong_too_often(n, truths, tail, times):
    """Brute force over all tables; not through the code's own sums."""
    tables = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    ends = {table: difference_ends(float(table[0]), float(table[1]), n, tail) for table in tables}
    for p, q in truths:
        rest = max(0.0, 1 - p - q)
        chance = {(b, c): math.comb(n, b) * math.comb(n - b, c) * p**b * q**c * rest ** (n - b - c) for b, c in tables}
        assert math.fsum(chance.values()) == pytest.approx(1)
        below = sum(chance[t] for t in tables if ends[t][1] < p - q - 1e-9)
        above = sum(chance[t] for t in tables if ends[t][0] > p - q + 1e-9)
        assert max(below, above) <= tail * times, (p, q)


@pytest.mark.parametrize(("worse", "better", "same"), [(0, 0, 359), (5, 0, 195), (12, 9, 300), (0, 6, 72)])
def test_p_and_interval_agree(worse, better, same):
    before, after = bits(worse, better, same)
    loss = accuracy_loss(before, after)
    for end, inward in ((loss.low, 1), (loss.high, -1)):
        assert accuracy_loss(before, after, end + inward * 1e-6).p > 0.05
        assert accuracy_loss(before, after, end - inward * 1e-6).p < 0.05


def test_more_changes_for_the_worse_raise_both_ends_and_more_items_narrow_them():
    ends = [difference_ends(float(worse), 3.0, 200, 0.025) for worse in range(60)]
    assert ends == sorted(ends)
    widths = [np.ptp(difference_ends(0.02 * n, 0.01 * n, n, 0.025)) for n in (100, 200, 400, 1600)]
    assert widths == sorted(widths, reverse=True)


def test_the_order_of_items_does_not_matter():
    generator = np.random.default_rng(0)
    before, after = generator.random(100) < 0.9, generator.random(100) < 0.85
    order = generator.permutation(100)
    assert accuracy_loss(before, after, 0.01) == accuracy_loss(before[order], after[order], 0.01)


def test_shares_count_as_parts_of_items():
    found = accuracy_loss([1, 1, 1, 0.5], [1, 0.5, 1, 0.5])
    assert found.value == 0.125
    assert found.high < accuracy_loss([1, 1, 1, 1], [1, 0, 1, 1]).high


def test_many_shares_come_close_to_the_normal_interval():
    """Five independent seeds an item: as binomial counts of whole items the interval would be twice as wide."""
    generator = np.random.default_rng(0)
    before, after = (generator.random((2000, 5)) < p for p in (0.6, 0.55))
    found = accuracy_loss(before.mean(1), after.mean(1))
    half = 1.96 * (before.mean(1) - after.mean(1)).std(ddof=1) / np.sqrt(2000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_few_changed_shares_leave_room_for_an_item_that_changes_with_every_seed():
    found = accuracy_loss([1.0] * 359, [0.8] + [1.0] * 358)
    assert found.high > 0.0095  # exact, of five times as many items: 0.0031


def test_answers_to_one_item_are_one_item():
    alone = rate([1, 0] * 20)
    thrice = rate([1, 1, 1, 0, 0, 0] * 20, clusters=[item for item in range(40) for _ in range(3)])
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    assert thrice.sources[0].n == 40


def test_clusters_never_make_a_rate_surer_than_its_values():
    values = [1, 0] * 30
    assert rate(values, clusters=[i // 2 for i in range(60)]).low == pytest.approx(rate(values).low)
    values, pairs = [1, 1, *values], [i // 2 for i in range(62)]  # one pair that does not cancel
    assert rate(values, clusters=pairs).low == pytest.approx(rate(values).low)


def test_one_cluster_has_no_interval():
    found = rate([1, 0, 1], clusters=["a"] * 3)
    assert not found.covers
    assert (found.low, found.high, found.p) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: accuracy_loss([1, 0], [1]),
        lambda: accuracy_loss([], []),
        lambda: accuracy_loss([2.0], [1.0]),
        lambda: accuracy_loss([1.0], [float("nan")]),
        lambda: accuracy_loss([1], [1], level=95),
        lambda: rate([0.5, -0.1]),
        lambda: rate([1, 0], clusters=[1]),
    ],
)
def test_what_cannot_be_right_or_wrong_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
