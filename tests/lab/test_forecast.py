"""The forecast of a plan against cases done by hand and laws any schedule obeys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import InputError
from deadweight.lab import Cell
from deadweight.lab.forecast import forecast


def _cells(*seconds, **more):
    return [Cell("toy", "x", {"number": number}, seconds=s, **more) for number, s in enumerate(seconds)]


def test_by_hand():
    cells = _cells(3, 2, 2, 1)
    found = forecast(cells, [1, 2, 4, 9])
    assert (found.seconds, found.longest) == (8, 3)
    assert found.spans == {1: 8, 2: 4, 4: 3, 9: 3}  # on two: 3 then 1; 2 then 2


def test_a_cell_waits_for_what_it_needs():
    first, second = _cells(5), Cell("toy", "y", {}, seconds=1, needs=(_cells(5)[0].key,))
    assert forecast([second, *first], [1, 2]).spans == {1: 6, 2: 6}
    assert forecast([second, *first], [1]).longest == 6


def test_a_timing_cell_takes_a_whole_machine():
    cells = [*_cells(2, 2), *_cells(0, 0, 3, exclusive=True)[2:]]
    assert forecast(cells, [1], jobs=2).spans == {1: 5}
    assert forecast(cells, [2], jobs=2).spans == {2: 5}  # the first two are spread over both machines
    assert forecast(cells, [3], jobs=2).spans == {3: 3}


@given(
    seconds=st.lists(st.integers(0, 50), max_size=12),
    machines=st.integers(1, 5),
    jobs=st.integers(1, 3),
    links=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_no_schedule_is_faster_than_can_be_or_slower_than_need_be(seconds, machines, jobs, links):
    cells = []
    for number, s in enumerate(seconds):
        needs = tuple(cells[a].key for a, b in links if b == number and a < number)
        cells.append(Cell("toy", "x", {"number": number}, needs, seconds=s))
    found = forecast(cells, [machines], jobs)
    span, slots = found.spans[machines], machines * jobs
    assert max(found.seconds / slots, found.longest) <= span + 1e-9
    assert span <= found.seconds / slots + found.longest + 1e-9  # Graham's bound of list scheduling


def test_cells_that_need_each_other_in_a_circle_end_the_forecast_too():
    one = Cell("toy", "x", {"number": 1}, needs=("0" * 16,), seconds=1)
    assert forecast([one], [1]).spans == {1: 1}


@pytest.mark.parametrize(("machines", "jobs"), [([0], 1), ([1], 0)])
def test_no_machines_are_refused(machines, jobs):
    with pytest.raises(InputError, match="at least 1"):
        forecast(_cells(1), machines, jobs)
