"""Means and rises: Student's interval where nothing is skewed, wider where something may be."""

import numpy as np
import pytest
from scipy import stats

from deadweight.errors import InputError
from deadweight.statistics import mean, rise
from deadweight.statistics.means import Moments


def test_a_symmetric_mean_is_scipys_t_test():
    values = [0.01, -0.005, 0.02, 0.011]
    found, theirs = mean(values, 0.01, symmetric=True), stats.ttest_1samp(values, 0.01)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_no_end_is_nearer_than_students(seed):
    values = np.random.default_rng(seed).lognormal(0, 0.6, 16)
    found, low_high = mean(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.low <= low_high.low + 1e-9
    assert found.high is None or found.high >= low_high.high - 1e-9


def test_the_side_of_the_long_tail_is_wider_and_mirrors():
    values = np.random.default_rng(3).exponential(size=24)
    right, left = mean(values), mean(-values)
    assert right.high - right.value > 1.2 * (right.value - right.low)
    assert (left.low, left.high) == pytest.approx((-right.high, -right.low))


def test_the_moments_are_scipys_freed_of_bias():
    values = np.random.default_rng(0).lognormal(size=11)
    found = Moments.of(values)
    assert found.skewness == pytest.approx(stats.skew(values, bias=False))
    assert (found.mean, found.deviation) == pytest.approx((values.mean(), stats.tstd(values)))


def test_the_stretch_undoes_halls_transformation():
    """y = (exp(bT) − 1)/b with b = 2γ/3, T = (mean − truth)/deviation, must reach −t/√n at the upper end."""
    moments = Moments(1.0, 2.0, 0.8, 16)
    low, high = moments.ends(0.025)
    skewness = 0.8 + (stats.norm.isf(0.025) - 1) * np.sqrt(6 / 16)
    bend = 2 * skewness / 3
    assert np.expm1(bend * (1.0 - high) / 2.0) / bend == pytest.approx(-stats.t.isf(0.025, 15) / 4)
    assert low == pytest.approx(1.0 - 2.0 * stats.t.isf(0.025, 15) / 4)


def test_many_values_come_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(size=4000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(4000)
    assert mean(values).high - values.mean() == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("clusters", [None, [i // 2 for i in range(20)]])
def test_p_and_interval_agree(clusters):
    values = np.random.default_rng(1).gamma(4, size=20)
    found = mean(values, clusters=clusters)
    for end, inward in ((found.low, 1), (found.high, -1)):
        assert mean(values, end + inward * 1e-6, clusters=clusters).p > 0.05
        assert mean(values, end - inward * 1e-6, clusters=clusters).p < 0.05


def test_clusters_of_equal_size_are_their_means():
    values = np.random.default_rng(0).normal(size=(12, 3))
    together = mean(values.ravel(), 0.1, clusters=[f"text {i}" for i in range(12) for _ in range(3)])
    alone = mean(values.mean(1), 0.1)
    assert (together.low, together.high, together.p) == pytest.approx((alone.low, alone.high, alone.p))
    assert (together.n, together.sources[0].n, together.limited_by.name) == (36, 12, "clusters")


def test_clusters_of_unequal_size_keep_the_mean_of_all_values():
    found = mean([1, 1, 1, 1, 2, 3, 2, 5, 4], clusters=[0, 0, 0, 0, 1, 2, 3, 4, 5])
    assert found.value == pytest.approx(20 / 9)


@pytest.mark.parametrize(
    ("values", "clusters", "label", "ends"),
    [
        ([0.3], None, "one measurement", (None, None)),
        ([1.0, 2.0], [7, 7], "one measurement", (None, None)),
        ([1.0, 2.0, 4.0], None, "range of 3 items", (1.0, 4.0)),
        ([0.1] * 6, None, "all 6 values alike", (None, None)),
    ],
)
def test_without_an_honest_interval_the_label_says_what_is_shown(values, clusters, label, ends):
    found = mean(values, 0.0, clusters=clusters)
    assert (found.label, (found.low, found.high), found.covers, found.p) == (label, ends, False, None)


def test_an_end_that_one_huge_value_leaves_open_is_none():
    found = mean([0.1, 0.11, 0.12, 0.1, 0.09, 0.1, 0.11, 5.0], 10.0)
    assert found.high is None
    assert found.low is not None
    assert found.covers


def test_a_rise_is_the_ratio_of_means_not_the_mean_of_ratios():
    before, after = [1.0, 2.0, 3.0, 4.0, 2.0, 1.0], [2.0, 2.0, 3.0, 4.1, 2.2, 1.1]
    found = rise(before, after, 0.01)
    assert found.value == pytest.approx(sum(after) / sum(before) - 1)


def test_a_rise_has_the_delta_methods_spread():
    generator = np.random.default_rng(0)
    before = generator.gamma(25, 3 / 25, 500)
    after = before * 1.02 + generator.normal(0, 0.2, 500)
    found = rise(before, after)
    residuals = (after - before) - found.value * before
    error = residuals.std(ddof=1) / before.mean() / np.sqrt(500)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_the_scale_of_losses_does_not_matter():
    generator = np.random.default_rng(0)
    before, after = generator.gamma(25, 3 / 25, 16), generator.gamma(25, 3.1 / 25, 16)
    nats, bits = rise(before, after, 0.01), rise(before / np.log(2), after / np.log(2), 0.01)
    assert (nats.low, nats.high, nats.p) == pytest.approx((bits.low, bits.high, bits.p))


@pytest.mark.parametrize(
    "wrong",
    [lambda: mean([]), lambda: mean([1.0, np.inf]), lambda: rise([0.0, 0.0], [1.0, 1.0]), lambda: mean([[1.0]])],
)
def test_what_has_no_mean_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
