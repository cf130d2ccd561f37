"""Every interval against another library, or by the share of simulated data sets it covers."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from deadweight.errors import InputError
from deadweight.lab import accuracy_loss, bootstrap_mean, holm, paired_t, wilson


def test_the_paired_interval_is_scipys():
    before, after = [0.97, 0.95, 0.98, 0.96], [0.96, 0.955, 0.97, 0.95]
    found = paired_t(before, after, margin=0.01)
    theirs = stats.ttest_rel(before, after)
    low, high = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    against = stats.ttest_1samp(np.subtract(before, after), 0.01)
    assert found.p == pytest.approx(against.pvalue, rel=1e-12)


def test_one_seed_bounds_nothing():
    found = paired_t([0.9], [0.8])
    assert (found.value, found.low, found.high) == (pytest.approx(0.1), -np.inf, np.inf)


def test_equal_seeds_are_no_certainty_when_the_measure_has_steps():
    found = paired_t([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], resolution=1 / 360)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 2) / 360 / np.sqrt(12) / np.sqrt(3))


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="equally long"):
        paired_t([1, 2], [1])


def _coverage(draw, truth, rounds=400):
    hits = sum(found.low <= truth <= found.high for found in (draw(np.random.default_rng(i)) for i in range(rounds)))
    return hits / rounds


def test_the_interval_of_an_accuracy_loss_covers_what_it_promises():
    def draw(generator):
        before = generator.random(300) < 0.95
        after = np.where(generator.random(300) < 0.03, ~before, before)
        return accuracy_loss(before, after)

    truth = 0.95 * 0.03 - 0.05 * 0.03
    assert _coverage(draw, truth) > 0.93


def test_no_change_at_all_still_leaves_the_doubt_of_the_number_of_items():
    few, many = accuracy_loss([1] * 40, [1] * 40, 0.01), accuracy_loss([1] * 4000, [1] * 4000, 0.01)
    assert few.value == many.value == 0
    assert few.high > 0.01 > many.high > 0


def test_the_bootstrap_covers_what_it_promises():
    def draw(generator):
        return bootstrap_mean(generator.exponential(size=80), seed=1, rounds=500)

    assert 0.88 < _coverage(draw, 1.0, rounds=200) <= 1.0


def test_clusters_widen_the_interval():
    generator = np.random.default_rng(0)
    shared = np.repeat(generator.normal(size=10), 20) + 0.1 * generator.normal(size=200)
    alone = bootstrap_mean(shared)
    together = bootstrap_mean(shared, clusters=np.repeat(np.arange(10), 20).tolist())
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_values_all_alike_get_the_rule_of_three():
    found = bootstrap_mean([0.0] * 100, margin=0.01)
    assert (found.low, found.high) == pytest.approx((-0.0369, 0.0369), abs=1e-4)
    assert found.p == pytest.approx(2 * 0.99**100)


@pytest.mark.parametrize(("hits", "n"), [(3, 40), (20, 40)])
def test_a_rate_is_wilsons(hits, n):
    found = wilson(hits, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, n, method="wilson"))


def test_a_count_of_zero_gets_the_rule_of_three():
    assert (wilson(0, 60).low, wilson(0, 60).high) == (0, 0.05)
    assert (wilson(60, 60).low, wilson(60, 60).high) == (0.95, 1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
