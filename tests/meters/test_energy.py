"""Energy on machines made of files and played-back counters: provenance, wrap-around, permissions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import InputError
from deadweight.meters import EnergyMeter, ModelledEnergy, NullEnergy, Reading, ReplayEnergy, energy_sources, measure


def charged(*devices):
    meter = EnergyMeter(devices)
    meter.start()
    meter.stop()
    return meter


@settings(max_examples=50, deadline=None)
@given(
    modulus=st.integers(10, 2_000),  # what may be drawn within a counter's own delay
    start=st.integers(0, 9_999),
    steps=st.lists(st.integers(0, 9_999), min_size=1, max_size=8),
)
def test_law_a_wrapping_counter_charges_what_a_straight_one_does(modulus, start, steps):
    steps = [step % modulus for step in steps]  # between two reads less than one whole turn
    straight = [start % modulus]
    for step in steps:
        straight.append(straight[-1] + step)
    meter = EnergyMeter([ReplayEnergy([value % modulus for value in straight], modulus=modulus)])
    meter.start()
    for _ in steps[1:]:
        meter._advance()
    meter.stop()
    total = meter.total().value
    assert total == (sum(steps) or None)


@pytest.mark.parametrize(
    ("before", "after", "joules"),
    {
        "a turn": (262_100.0, 12.0, 55.32885),
        "begun anew by a suspend": (84_000.0, 3.0, None),
        "back by one unit": (5000.000061, 5000.0, None),
    }.values(),
    ids=["a turn", "begun anew by a suspend", "back by one unit"],
)
def test_a_step_back_is_a_turn_only_where_a_processor_could_draw_it(before, after, joules):
    meter = charged(ReplayEnergy([before, after], modulus=262_143.32885, name="cpu package-0"))
    assert meter.total().value == (None if joules is None else pytest.approx(joules))
    if joules is None:
        assert "stepped back" in meter.total().reason


FAULTS = {
    "absent": (NullEnergy("cpu", "none", "buy one"), "none"),
    "backwards": (ReplayEnergy([5.0, 4.0]), "backwards"),
    "too-short": (ReplayEnergy([5.0, 5.0]), "too short"),
    "a counter that does not trust itself": (ReplayEnergy([1.0, 9.0], provenance="missing"), ""),
}


@pytest.mark.parametrize(("device", "why"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_known_is_missing_and_never_zero(device, why):
    total = charged(device).total()
    assert (total.value, total.provenance) == (None, "missing")
    assert why in total.reason


def test_a_partial_total_says_what_it_leaves_out():
    total = charged(ReplayEnergy([1.0, 4.0], name="gpu 0"), NullEnergy("cpu", "no permission", "ask")).total()
    assert (total.value, total.provenance, total.cure) == (3.0, "measured", "ask")
    assert "covers gpu 0 only" in total.reason
    assert "no permission" in total.reason


def test_a_modelled_part_makes_the_total_modelled():
    total = charged(ReplayEnergy([1.0, 4.0]), ModelledEnergy(10.0, "the operator")).total()
    assert total.provenance == "modelled"
    assert "the operator" in total.reason


def test_one_device_is_charged_once():
    with pytest.raises(InputError):
        EnergyMeter([ReplayEnergy([1.0], name="a"), ReplayEnergy([1.0], name="a")])


@pytest.mark.parametrize(("value", "provenance"), [(None, "measured"), (0.0, "missing"), (1.0, "missing")])
def test_a_reading_has_a_value_exactly_when_it_is_not_missing(value, provenance):
    with pytest.raises(InputError):
        Reading(value, "J", provenance)


def test_this_machine_says_of_every_source_whether_and_why():
    sources = energy_sources()
    assert sources
    for source in sources:
        assert source.available == (source.provenance != "missing")
        assert source.available or (source.reason and source.cure)
    with measure(energy=True) as cost:
        math.factorial(20_000)
    if not any(source.available for source in sources):
        assert (cost.energy.value, cost.energy.provenance) == (None, "missing")
        assert cost.energy.reason
