"""Holm, verdicts, and what would settle them."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from deadweight.errors import InputError
from deadweight.statistics import (
    Estimate,
    Source,
    accuracy_loss,
    chosen,
    holm,
    mean,
    median,
    needed,
    simultaneous,
    two_way_mean,
    verdict,
    verdicts,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n", [1, 2, 9, 30, 192])
def test_holm_is_statsmodels(n):
    given = np.random.default_rng(n).random(n) ** 3
    assert holm(given) == pytest.approx(multipletests(given, method="holm")[1])
    assert holm([*given, None]) == pytest.approx(multipletests([*given, 1.0], method="holm")[1])


def test_nothing_to_adjust():
    assert holm([]) == []


LOW, HIGH = Estimate(0.0, -0.004, 0.004, 900, 0.001), Estimate(0.05, 0.03, 0.07, 900, 0.001)


@pytest.mark.parametrize(
    ("estimate", "adjusted", "said"),
    [
        (LOW, 0.04, "dead weight"),
        (LOW, 0.06, "undecided"),
        (LOW, None, "dead weight"),
        (HIGH, 0.04, "needed"),
        (Estimate(0.01, 0.0, 0.02, 9, 0.9), 0.01, "undecided"),
        (Estimate(0.0, -0.004, 0.004, 3, 0.001, 0.0, "range of 3 seeds"), 0.01, "undecided"),
        (Estimate(0.0, -0.004, 0.004, 3), 0.01, "undecided"),  # no p: no honest test
        (Estimate(0.0, None, 0.004, 9, 0.01), 0.01, "dead weight"),
        (Estimate(0.05, 0.03, None, 9, 0.01), 0.01, "needed"),
        (Estimate(0.05, None, None, 9, 0.01), 0.01, "undecided"),
        (Estimate(0.0, -0.004, 0.004, 9, 0.08, 0.9, "90 % interval"), None, "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_that_covers_and_an_adjusted_p(estimate, adjusted, said):
    assert verdict(estimate, 0.01, adjusted) == said


@pytest.mark.parametrize("blocks", [8, 9, 12, 30])
def test_holm_corrects_once_whatever_the_number_of_blocks(blocks):
    """One block surely unused beside needed ones: correcting twice lost it from nine blocks on."""
    clear = [accuracy_loss([1] * 400, [0] * 100 + [1] * 300, 0.01) for _ in range(blocks - 1)]
    unused = accuracy_loss([1] * 380, [1] * 380, 0.01)
    assert verdicts([*clear, unused], [0.01] * blocks) == ["needed"] * (blocks - 1) + ["dead weight"]


@pytest.mark.parametrize("better", [0.0, 0.05])
def test_needed_settles(better):
    """As many more items, changing as these did, do settle it."""
    n = 300
    count = round(better * n)
    lost = np.array([1] * count + [-1] * count + [0] * (n - 2 * count))
    estimate = accuracy_loss(lost > 0, lost < 0, 0.01)
    assert verdict(estimate, 0.01, min(1.0, 6 * estimate.p)) == "undecided"
    want = needed(estimate, 0.01, tests=6)["items"]
    times = -(-want // n)
    more = accuracy_loss(np.tile(lost, times) > 0, np.tile(lost, times) < 0, 0.01)
    assert verdict(more, 0.01, 6 * more.p) == "dead weight"
    half = np.tile(lost, max(1, times // 3))
    few = accuracy_loss(half > 0, half < 0, 0.01)
    assert times < 4 or verdict(few, 0.01, min(1.0, 6 * few.p)) == "undecided"


def test_what_dominates_is_what_must_grow():
    sources = (Source("items", 500, 0.004), Source("sets of demonstrations", 3, 0.09, 3))
    assert list(needed(Estimate(0.0, -0.09, 0.09, 1500, 0.5, sources=sources), 0.02)) == ["sets of demonstrations"]


def test_fewer_than_enough_are_told_how_many_make_an_interval():
    assert needed(median([1.0, 2.0, 3.0]), 1.0) == {"rounds": 6}
    assert needed(mean([1.0, 2.0, 3.0]), 1.0) == {"items": 5}
    assert needed(two_way_mean([[1, 0]] * 30, 0.01), 0.01) == {"sets of demonstrations": 3}


def test_nothing_settles_an_estimate_on_the_margin():
    assert needed(accuracy_loss([1] * 100, [0] + [1] * 99, 0.01), 0.01) is None
    assert needed(Estimate(0.0100001, 0.0, 0.02, 50, 1.0, sources=(Source("items", 50, 0.01),)), 0.01) is None
    assert needed(LOW, 0.01) is None  # nobody knows what it was sampled from
    with pytest.raises(InputError):
        needed(LOW, 0.01, tests=0)


def test_what_is_settled_needs_no_more():
    assert needed(accuracy_loss([1] * 2000, [1] * 2000, 0.01), 0.01) == {}


def test_the_best_of_many_has_an_interval_for_the_best_of_many():
    values = [3.0, 3.1, 2.9, 3.05, 2.95]
    one = chosen(mean(values, symmetric=True, level=simultaneous(8)), 8)
    assert one.label == "95 % interval, for the best of 8"
    half = stats.t.isf(0.025 / 8, 4) * np.std(values, ddof=1) / np.sqrt(5)
    assert (one.high - one.low, one.level, one.p) == (pytest.approx(2 * half), 0.95, None)
    few = chosen(median([3.0, 3.1]), 8)
    assert (few.low, few.high, few.label) == (None, None, "no interval: chosen among 8")
