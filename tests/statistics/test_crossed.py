"""Items crossed with sets or seeds, and kappa."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from deadweight.errors import InputError
from deadweight.statistics import accuracy_loss, cohen_kappa, rate, two_way_mean, two_way_rate


def table(items=60, sets=3, seed=0, spread=0.2):
    generator = np.random.default_rng(seed)
    shift = generator.normal(0, spread, sets)
    return (generator.random((items, sets)) < 0.5 + shift).astype(float) - (generator.random((items, sets)) < 0.5)


def test_half_widths_add_in_squares():
    values = table()
    found = two_way_mean(values)
    by_item = values.mean(1)
    items = accuracy_loss(np.clip(by_item, 0, None), np.clip(-by_item, 0, None))
    sets = stats.t.isf(0.025, 2) * values.mean(0).std(ddof=1) / np.sqrt(3)
    assert found.high - found.value == pytest.approx(np.hypot(items.high - items.value, sets))
    assert found.value - found.low == pytest.approx(np.hypot(items.value - items.low, sets))
    assert [source.name for source in found.sources] == ["items", "sets of demonstrations"]
    assert found.sources[1].half == pytest.approx(sets)


def test_what_dominates_is_said():
    assert two_way_mean(table(500, 3, spread=0.3)).limited_by.name == "sets of demonstrations"
    assert two_way_mean(np.tile(table(20, 1), (1, 5))).limited_by.name == "items"


def test_sets_that_all_say_the_same_leave_the_items_doubt():
    bits = table(50, 1)
    same = two_way_mean(np.tile(bits, (1, 4)), 0.0)
    alone = accuracy_loss(np.clip(bits[:, 0], 0, None), np.clip(-bits[:, 0], 0, None), 0.0)
    assert (same.low, same.high, same.p) == pytest.approx((alone.low, alone.high, alone.p))


def test_two_sets_show_their_range_and_one_only_itself():
    two = two_way_mean(table(sets=2), 0.01, units=("images", "seeds"))
    means = sorted(table(sets=2).mean(0))
    assert (two.label, two.covers, two.p, [two.low, two.high]) == ("range of 2 seeds", False, None, means)
    one = two_way_mean(table(sets=1), 0.01, units=("images", "seeds"))
    assert one.covers
    assert (one.p, one.label) == (None, "95 % interval, for this one of the seeds")
    assert (one.limited_by.name, one.limited_by.n) == ("seeds", 1)


@pytest.mark.parametrize("shares", [True, False])
def test_p_and_interval_agree(shares):
    values = table(40, 4)
    found = two_way_mean(values, shares=shares)
    for end, inward in ((found.low, 1), (found.high, -1)):
        assert two_way_mean(values, end + inward * 1e-6, shares=shares).p > 0.05
        assert two_way_mean(values, end - inward * 1e-6, shares=shares).p < 0.05


def test_the_order_of_items_and_sets_does_not_matter():
    values = table(30, 4)
    generator = np.random.default_rng(1)
    mixed = values[generator.permutation(30)][:, generator.permutation(4)]
    one, two = two_way_mean(values, 0.02), two_way_mean(mixed, 0.02)
    assert (one.value, one.low, one.high, one.p) == pytest.approx((two.value, two.low, two.high, two.p))


def test_cells_that_do_not_count_are_left_out():
    values = table(30, 3)
    holed = np.vstack([values, np.full((5, 3), np.nan)])
    assert two_way_mean(holed, 0.0) == two_way_mean(values, 0.0)
    values[:10, 1:] = np.nan
    found = two_way_mean(values)
    by_item = np.nanmean(values, axis=1)
    items = accuracy_loss(np.clip(by_item, 0, None), np.clip(-by_item, 0, None))
    assert found.value == pytest.approx(np.nanmean(values)) != pytest.approx(items.value)
    assert found.high - found.value == pytest.approx(np.hypot(items.high - items.value, found.sources[1].half))


def test_a_rate_over_sets_stays_within_its_bounds():
    found = two_way_rate([[1, 1, 1]] * 30)
    alone = rate([1] * 30)
    assert (found.low, found.high) == (pytest.approx(alone.low), 1.0)
    apart = np.stack([np.zeros(20), np.zeros(20), np.arange(20) < 5], axis=1)
    assert two_way_rate(apart).low == 0.0 > two_way_mean(apart).low


@pytest.mark.parametrize("wrong", [[1, 2], [[np.inf]], [[np.nan]], [[3.0]], [[]]])
def test_what_is_no_table_of_shares_is_refused(wrong):
    with pytest.raises(InputError):
        two_way_mean(wrong)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_is_statsmodels(seed):
    generator = np.random.default_rng(seed)
    wanted = generator.integers(0, 3, 300)
    answers = np.where(generator.random(300) < 0.5, wanted, generator.integers(0, 3, 300))
    counts = np.zeros((3, 3))
    np.add.at(counts, (answers, wanted), 1)
    theirs = cohens_kappa(counts)
    found = cohen_kappa(answers, wanted)
    assert found.value == pytest.approx(theirs.kappa)
    assert found.high - found.low == pytest.approx(theirs.kappa_upp - theirs.kappa_low, rel=0.1)
    assert found.low > 0
    assert found.p < 0.05


def test_one_label_whatever_is_asked_is_no_agreement():
    wanted = [0] * 75 + [1] * 25
    found = cohen_kappa([0] * 100, wanted)
    assert found.value == 0
    assert found.low < 0 < found.high
    assert found.p > 0.5


def test_full_agreement_is_beyond_chance_however_equal_the_items():
    found = cohen_kappa([0, 1] * 30, [0, 1] * 30)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 1


def test_kappa_over_sets_knows_that_sets_differ():
    generator = np.random.default_rng(0)
    wanted = generator.integers(0, 2, 200)
    answers = np.stack([np.where(generator.random(200) < s, wanted, 1 - wanted) for s in (0.5, 0.7, 0.9)], axis=1)
    found, pooled = cohen_kappa(answers, wanted), cohen_kappa(answers.ravel(), np.repeat(wanted, 3))
    assert found.value == pytest.approx(pooled.value)
    assert found.limited_by.name == "sets of demonstrations"
    assert found.high - found.low > 2 * (pooled.high - pooled.low)


def test_answers_that_are_no_label_do_not_count():
    assert cohen_kappa([0, 1, -1, 1, 0], [0, 1, 1, 0, 0]).value == cohen_kappa([0, 1, 1, 0], [0, 1, 0, 0]).value


def test_kappa_of_one_label_is_undefined():
    found = cohen_kappa([0] * 20, [0] * 20)
    assert np.isnan(found.value)
    assert not found.covers
    with pytest.raises(InputError):
        cohen_kappa([-1, -1], [0, 1])


def test_a_difference_of_shares_ends_where_shares_do():
    few = np.array([[-1.0, 0, 0]] * 10 + [[-1, -1, 0]] * 10)
    found = two_way_mean(few, 0.01)
    assert found.low == -1
    assert found.high is not None
    assert found.value < found.high <= 1
