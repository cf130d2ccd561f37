"""Verdicts: once over all judged effects of a study, then the choice of what is shown."""

import numpy as np
import pytest

from deadweight.statistics import Estimate, accuracy_loss, rise
from deadweight.studies.frame import Effect, Settled, select, settle
from deadweight.studies.frame.quantity import ACCURACY, AGREEMENT, RELATIVE_LOSS, SPEED
from deadweight.studies.frame.verdicts import MOST

CLEAR = Estimate(0.0, -0.004, 0.004, 400, 0.001)


def effect(id, estimate=CLEAR, **changes):
    return Effect(id, **{"subject": "", "removed": "Removing it", "quantity": ACCURACY, "judged": True,
                         "estimate": estimate, **changes})  # fmt: skip


def verdicts(effects, **options):
    return [finding.verdict for finding in settle(effects, **options)]


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (Estimate(0.001, -0.002, 0.004, 30, 0.001), "dead weight"),
        (Estimate(0.035, 0.02, 0.05, 30, 0.001), "needed"),
        (Estimate(0.012, 0.005, 0.02, 30, 0.5), "undecided"),
        (Estimate(0.001, -0.002, 0.004, 30, 0.2), "undecided"),
        (Estimate(0.0, None, None, 1, 1.0), "undecided"),
        (Estimate(0.0, -0.001, 0.001, 3, 0.0, 0.0, "range of 3 rounds"), "undecided"),
    ],
    ids=["below the margin", "above it", "across it", "interval clear but p is not", "no interval", "only a range"],
)
def test_the_verdict_is_read_off_interval_and_p(estimate, verdict):
    assert verdicts([effect("x", estimate)]) == [verdict]


def test_what_is_not_judged_gets_no_verdict():
    (finding,) = settle([effect("x", judged=False)])
    assert (finding.verdict, finding.margin) == (None, None)


@pytest.mark.parametrize("blocks", [8, 9, 12, 30])
def test_the_same_data_give_the_same_verdict_however_many_are_shown(blocks):
    """Corrected once, whatever is shown: p of a block that just clears Holm among all clears it at every depth."""
    just = Estimate(0.0, -0.004, 0.004, 400, 0.049 / blocks)
    crossing = Estimate(0.01, -0.01, 0.03, 400, 0.9)
    effects = [effect("block-1", just, series="blocks")]
    effects += [effect(f"block-{n}", crossing, series="blocks") for n in range(2, blocks + 1)]
    assert verdicts(effects)[0] == "dead weight"
    twice_too_much = Estimate(0.0, -0.004, 0.004, 400, 0.051 / blocks)
    assert verdicts([effect("block-1", twice_too_much, series="blocks"), *effects[1:]])[0] == "undecided"


@pytest.mark.parametrize("blocks", [9, 12, 30])
def test_of_a_long_series_the_least_needed_are_shown_and_all_are_corrected_for(blocks):
    rng = np.random.default_rng(blocks)
    uppers = rng.permutation(blocks) / 100
    effects = [
        effect(f"block-{n}", Estimate(0.0, -0.1, float(high), 100, 0.5), series="blocks")
        for n, high in enumerate(uppers)
    ]
    settled = [Settled(one, finding) for one, finding in zip(effects, settle(effects), strict=True)]
    shown = [finding.high for finding in select(settled)]
    assert shown == [high for high in uppers if high < MOST / 100]  # the lowest upper ends, in the order of the blocks


def test_what_is_not_shown_is_corrected_for_all_the_same():
    hidden = [effect(f"hidden-{n}", Estimate(0.01, -0.1, 0.1, 100, 1.0), shown=False) for n in range(9)]
    seen = effect("seen", Estimate(0.0, -0.004, 0.004, 400, 0.02))
    assert verdicts([seen]) == ["dead weight"]
    assert verdicts([seen, *hidden])[0] == "undecided"
    settled = [Settled(one, finding) for one, finding in zip([seen, *hidden], settle([seen, *hidden]), strict=True)]
    assert [finding.id for finding in select(settled)] == ["study-seen"]


def test_a_block_that_costs_nothing_for_sure_is_dead_weight_and_one_that_costs_much_needed():
    right = np.ones(1000, dtype=int)
    lost = right.copy()
    lost[:200] = 0
    effects = [
        effect("idle", accuracy_loss(right, right, 0.01)),
        effect("busy", accuracy_loss(right, lost, 0.01), quantity=AGREEMENT),
        effect("loss", rise([2.0, 2.1, 1.9, 2.2] * 4, [3.0, 3.1, 2.9, 3.2] * 4, 0.01), quantity=RELATIVE_LOSS),
    ]
    assert verdicts(effects) == ["dead weight", "needed", "needed"]


def test_several_subjects_are_told_apart_and_one_is_not():
    one, two = (effect("block-1", subject=name) for name in ("timm:vit_a", "file:my vit"))
    assert [f.id for f in settle([one], study="depth")] == ["depth-block-1"]
    found = settle([one, two], study="depth")
    assert [f.id for f in found] == ["depth-timm-vit-a-block-1", "depth-file-my-vit-block-1"]
    assert found[0].claim.startswith("timm:vit_a: Removing it")


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": SPEED},  # a speed is no loss from removal
        {"removed": ""},  # nothing to say
        {"estimate": Estimate(0.0, -0.1, 0.1, 10)},  # judged, but against no margin
    ],
    ids=["judged without being a loss", "no sentence", "no test against a margin"],
)
def test_effects_that_could_not_be_judged_are_refused(wrong):
    with pytest.raises(ValueError, match="effect 'x'"):
        effect("x", **wrong)
