"""The search for an allocation: against every allocation there is."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.anatomy import MlpPaths
from deadweight.compression.moves import MOVES, Choice, Move
from deadweight.compression.moves.narrow import Narrow
from deadweight.compression.moves.share import SharedMlp
from deadweight.compression.search import Allocation, Allowed, Sizes
from deadweight.compression.survey import Survey
from deadweight.compression.visit import Site

HIDDEN, UNIT, ATTENTION = 8, 10, 40
WHOLE = Sizes(1000, 1000)


WIDTHS, EVERY = Allowed(("widths",)), Allowed.all_but()


class Measured:
    """A visit to a block whose widths were looked at."""

    def __init__(self, site):
        self.widths = lambda: site


def site(index, half):
    losses = {share / 8: half * (1 - share / 8) / 0.5 for share in range(7, 0, -1)}
    return Site(
        (index,), MlpPaths(f"b{index}", ("up",), "down", HIDDEN), torch.arange(HIDDEN), losses, dict(losses),
        UNIT, UNIT, HIDDEN * UNIT, HIDDEN * UNIT + ATTENTION, HIDDEN * UNIT + ATTENTION,
    )  # fmt: skip


def survey(halves, drops=None, pairs=()):
    sites = [site(index, half) for index, half in enumerate(halves)]
    saved = HIDDEN * UNIT
    choices = [
        (
            *Narrow().measure(Measured(one)),
            *(SharedMlp("sharing", (a, b), loss, saved) for a, b, loss in pairs if b == index),
            *(Choice("depth", (index,), loss, saved + ATTENTION, saved + ATTENTION, removes=(index,))
              for block, loss in (drops or {}).items() if block == index),
        )
        for index, one in enumerate(sites)
    ]  # fmt: skip
    return Survey(tuple(sites), tuple(choices), None, 0, 0)


def planned(plan, what):
    return plan.as_json()[what]


LOSSES = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=3)


@given(halves=LOSSES, budget=st.floats(0.8, 0.99))
@settings(max_examples=30, deadline=None)
def test_widths_are_within_a_unit_of_the_best_of_all(halves, budget):
    limit = Sizes(budget * WHOLE.parameters, float("inf"))
    found = Allocation(survey(halves), WHOLE, WIDTHS).best(limit)
    every = [
        (sum(half * (1 - kept / 8) / 0.5 for half, kept in zip(halves, widths, strict=True)))
        for widths in product(range(1, 9), repeat=len(halves))
        if WHOLE.parameters - sum((8 - kept) * UNIT for kept in widths) <= limit.parameters
    ]
    if not every:
        assert found is None
        return
    assert found is not None
    assert min(every) - 1e-9 <= found.loss <= min(every) + max(halves) / 4  # one unit of eight at the steepest
    assert Allocation(survey(halves), WHOLE, EVERY).size_of(found).within(limit)


def test_units_go_where_they_cost_least():
    found = Allocation(survey([0.5, 0.01, 0.5]), WHOLE, WIDTHS).best(Sizes(930, float("inf")))
    assert planned(found, "units") == {"1": 1}


def test_a_block_nobody_needs_is_dropped_but_no_two_neighbours():
    drops = {0: 0.001, 1: 0.001, 2: 0.001}
    found = Allocation(survey([1.0] * 3, drops), WHOLE, EVERY).best(Sizes(770, float("inf")))
    assert planned(found, "dropped") == [0, 2]
    found = Allocation(survey([1.0] * 3, drops), WHOLE, Allowed.all_but("depth")).best(Sizes(800, float("inf")))
    assert planned(found, "units")
    assert not planned(found, "dropped")


def test_a_shared_mlp_is_taken_where_it_is_cheap():
    plan = Allocation(survey([0.5, 0.5, 0.5], pairs=[(1, 2, 0.01)]), WHOLE, EVERY).best(Sizes(920, float("inf")))
    assert planned(plan, "shared") == [{"blocks": [1, 2], "merge": "first"}]
    assert not planned(plan, "units")
    dear = Allocation(survey([0.5, 0.5, 0.5], pairs=[(1, 2, 5.0)]), WHOLE, EVERY).best(Sizes(920, float("inf")))
    assert not planned(dear, "shared")


def test_a_shared_mlp_is_not_narrowed_as_well():
    allocation = Allocation(survey([0.5] * 4, pairs=[(0, 1, 0.01), (1, 2, 0.01), (2, 3, 0.01)]), WHOLE, EVERY)
    for plan in (allocation.smallest(), *(plan for _, plan in allocation.front())):
        decided = [block for choice in plan.choices for block in choice.blocks]
        assert len(decided) == len(set(decided))


def test_sharing_saves_no_macs():
    plan = Allocation(survey([0.5, 0.5], pairs=[(0, 1, 0.01)]), WHOLE, EVERY).best(Sizes(float("inf"), 950))
    assert not planned(plan, "shared")
    assert sum(HIDDEN - kept for kept in planned(plan, "units").values()) * UNIT >= 50


def test_both_budgets_hold():
    allocation = Allocation(survey([0.5, 0.2], pairs=[(0, 1, 0.3)]), WHOLE, EVERY)
    plan = allocation.best(Sizes(900, 980))
    assert allocation.size_of(plan).within(Sizes(900, 980))


def test_one_width_for_all():
    plan = Allocation(survey([0.5, 0.1]), WHOLE, Allowed(("widths",), even=True)).best(Sizes(920, 1e9))
    assert planned(plan, "units") == {"0": 4, "1": 4}


def test_out_of_reach():
    allocation = Allocation(survey([0.5, 0.1]), WHOLE, EVERY)
    assert allocation.best(Sizes(10, float("inf"))) is None
    assert planned(allocation.smallest(), "units") == {"0": 1, "1": 1}


@pytest.mark.parametrize("against", ["parameters", "macs"])
def test_no_point_of_the_front_is_both_larger_and_worse(against):
    allocation = Allocation(survey([0.5, 0.1, 0.3], {1: 0.4}, [(1, 2, 0.2)]), WHOLE, EVERY)
    front = allocation.front(against)
    assert len(front) > 3
    for one in front:
        for other in front:
            assert not (getattr(other[0], against) <= getattr(one[0], against) and other[1].loss < one[1].loss)


class Halve(Move):
    """A toy: excludes dropping a neighbour, though dropping says nothing of it."""

    name = "halve"
    excludes = frozenset({"depth"})

    def measure(self, visit):
        raise NotImplementedError


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_move_excludes_its_neighbours_whichever_comes_first(order, monkeypatch):
    monkeypatch.setattr("deadweight.compression.search.MOVES", [*MOVES, Halve()])
    halved, dropped = order
    base = survey([1.0, 1.0])
    choices = [(), ()]
    choices[halved] = (Choice("halve", (halved,), 0.01, 100, 100),)
    choices[dropped] = (Choice("depth", (dropped,), 0.02, 100, 100),)
    allocation = Allocation(Survey(base.sites, tuple(choices), None, 0, 0), WHOLE, Allowed(("depth", "halve")))
    assert [choice.move for choice in allocation.best(Sizes(900, float("inf"))).choices] == ["halve"]
    assert allocation.best(Sizes(800, float("inf"))) is None
    Halve.excludes = frozenset()
    try:
        allocation = Allocation(Survey(base.sites, tuple(choices), None, 0, 0), WHOLE, Allowed(("depth", "halve")))
        assert len(allocation.best(Sizes(800, float("inf"))).choices) == 2
    finally:
        Halve.excludes = frozenset({"depth"})
