import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from deadweight.prompting.alignment import (
    agreement,
    coherence,
    excess_override,
    joint,
    override,
    permutation,
    quadrants,
)

CYCLE = np.array([1, 2, 0])
CLASSES = st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=2, max_size=30).map(np.array)


def test_by_hand():
    gold = np.array([0, 0, 1, 2])
    prior = np.array([0, 1, 1, 2])
    predicted = np.array([1, 1, 1, 0])
    assert agreement(predicted, gold).tolist() == [0, 0, 1, 0]
    np.testing.assert_equal(override(prior, predicted, gold, CYCLE), [1, np.nan, 0, 1])
    assert excess_override(predicted, prior, gold, CYCLE).tolist() == [1, 0, 0, 1]
    assert quadrants(prior, predicted, gold) == {
        "right prior kept": 1,
        "right prior broken": 2,
        "wrong prior repaired": 0,
        "wrong prior left": 1,
    }


@settings(max_examples=50, deadline=None)
@given(CLASSES)
def test_the_joint_rate_is_zero_by_construction(rows):
    assert not joint(rows[:, 0], rows[:, 1], CYCLE).any()


@settings(max_examples=50, deadline=None)
@given(CLASSES)
def test_with_two_labels_excess_override_is_a_difference_of_accuracies(rows):
    inverted, control, gold = (rows[:, at] % 2 for at in range(3))
    swap = np.array([1, 0])
    expected = agreement(control, gold).mean() - agreement(inverted, gold).mean()
    assert excess_override(inverted, control, gold, swap).mean() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(CLASSES)
def test_quadrants_count_every_item_once(rows):
    assert sum(quadrants(rows[:, 0], rows[:, 1], rows[:, 2]).values()) == len(rows)


def test_coherence_is_cohens_kappa():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    two[:120] = one[:120]
    assert coherence(one, two, 3) == pytest.approx(cohen_kappa_score(one, two))
    assert coherence(one, one, 3) == 1


@pytest.mark.parametrize("values", [[], [1, 1, 1]], ids=["nothing", "one class"])
def test_coherence_is_undefined_for(values):
    assert np.isnan(coherence(values, values, 3))


def test_phi_by_number():
    assert permutation({"a": "b", "b": "c", "c": "a"}, ["a", "b", "c"]).tolist() == [1, 2, 0]
