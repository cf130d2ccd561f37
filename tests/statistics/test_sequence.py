"""The fixed sequence of tests behind useful depth."""

import numpy as np
import pytest
from scipy import stats

from deadweight.errors import InputError
from deadweight.statistics import Estimate, fixed_sequence, useful_depth

pytestmark = pytest.mark.slow


def loss(p, value=0.0):
    return Estimate(value, None, None, 100, p)


@pytest.mark.parametrize(
    ("losses", "first"),
    [
        ([loss(0.01), loss(0.01), loss(0.01)], 0),
        ([loss(0.01), loss(0.5), loss(0.01)], 2),
        ([loss(0.01), loss(0.01), loss(0.5)], 3),
        ([loss(0.099), loss(0.099)], 0),  # one-sided
        ([loss(0.101), loss(0.099)], 1),
        ([loss(0.001, 0.2), loss(0.01)], 1),  # surely above the margin
        ([loss(None), loss(0.01)], 1),
        ([], 0),
    ],
)
def test_the_first_failure_from_the_end_stops(losses, first):
    assert fixed_sequence(losses, 0.01) == first


def test_useful_depth_does_not_depend_on_the_order_of_items():
    generator = np.random.default_rng(0)
    last = generator.random(1000) < 0.9
    rows = [last & (generator.random(1000) >= lost) for lost in (0.3, 0.1, 0.004, 0.001)]
    first = useful_depth([*rows, last])
    for _ in range(5):
        order = generator.permutation(1000)
        assert useful_depth([row[order] for row in (*rows, last)]) == first
    assert first.layer >= 2


def test_the_upper_end_is_the_exact_one_at_5_percent_on_that_side():
    found = useful_depth([[1] * 359, [1] * 359])
    assert found.losses[0].high == pytest.approx(1 - 0.05 ** (1 / 359))
    assert found.layer == 0
    assert useful_depth([[1] * 298, [1] * 298]).layer == 1  # 0.0100 is not below one point
    assert useful_depth([[1] * 299, [1] * 299]).layer == 0


def test_nothing_useful_before_the_last():
    assert useful_depth([[0] * 50, [1] * 50]).layer == 1
    assert useful_depth([[1] * 50]).layer == 0
    with pytest.raises(InputError):
        useful_depth([1, 0])


def test_a_false_claim_is_rare_however_many_layers():
    """At a true loss of the margin, 30 layers; the old rule claimed in 30 to 74 % of runs of 11."""
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        last = np.ones(400, dtype=bool)
        rows = generator.random((30, 400)) >= 0.01
        false += useful_depth([*rows, last]).layer < 30
    assert false <= stats.binom.ppf(0.999, 300, 0.05)
