"""Energy on machines made of files and played-back counters: provenance, wrap-around, permissions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import InputError
from deadweight.meters import EnergyMeter, ModelledEnergy, NullEnergy, Reading, ReplayEnergy, energy_sources, measure
from deadweight.meters.counters import gpu_devices, rapl_devices


def charged(*devices):
    meter = EnergyMeter(devices)
    meter.start()
    meter.stop()
    return meter


@pytest.fixture
def powercap(tmp_path):
    def zone(path, name, microjoules, span=262_143_328_850):
        folder = tmp_path / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text(f"{span}\n")
        return folder / "energy_uj"

    zone.root = tmp_path
    return zone


def test_rapl_takes_packages_and_memory_and_nothing_twice(powercap):
    powercap("intel-rapl:0", "package-0", 5_000_000)
    powercap("intel-rapl:0/intel-rapl:0:0", "core", 1)
    powercap("intel-rapl:0/intel-rapl:0:1", "dram", 2_000_000)
    powercap("intel-rapl:1", "package-1", 7_000_000)
    powercap("intel-rapl:2", "psys", 9_000_000)
    devices = rapl_devices(powercap.root)
    assert [device.name for device in devices] == ["cpu package-0", "dram of cpu package-0", "cpu package-1"]
    assert [device.joules() for device in devices] == [5.0, 2.0, 7.0]
    assert {device.provenance for device in devices} == {"measured"}


def test_rapl_counts_across_the_wrap(powercap):
    file = powercap("intel-rapl:0", "package-0", 99_000_000, span=100_000_000)
    meter = EnergyMeter(rapl_devices(powercap.root))
    meter.start()
    file.write_text("4000000")
    while True:  # the counter refuses windows shorter than its resolution
        meter.stop()
        if meter.seconds >= meter.devices[0].shortest:
            break
    assert meter.total() == Reading(5.0, "J", "measured")


def test_rapl_without_permission_is_missing_with_a_cure(powercap, monkeypatch):
    from zeus.device.cpu import rapl
    from zeus.device.cpu.common import ZeusCPUNoPermissionError

    def refused(path):
        raise ZeusCPUNoPermissionError("root only")

    powercap("intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(rapl, "RAPLFile", refused)  # tests may run as root, to whom nothing is forbidden
    (device,) = rapl_devices(powercap.root)
    assert device.joules() is None
    assert "permission" in device.reason
    assert "chmod" in device.cure
    total = charged(device).total()
    assert (total.value, total.provenance) == (None, "missing")
    assert total.cure == device.cure


def test_a_counter_that_vanishes_is_missing(powercap):
    file = powercap("intel-rapl:0", "package-0", 1)
    meter = EnergyMeter(rapl_devices(powercap.root))
    meter.start()
    file.unlink()
    meter.stop()
    assert meter.total().provenance == "missing"


def test_no_powercap_folder_is_missing(tmp_path):
    (device,) = rapl_devices(tmp_path / "nowhere")
    assert device.provenance == "missing"
    assert device.reason
    assert device.cure


class FakeGpu:
    def __init__(self, counter):
        self.counter = counter

    def supports_get_total_energy_consumption(self):
        return self.counter is not None

    def get_total_energy_consumption(self):
        return self.counter

    def get_name(self):
        return "Old GPU"


def test_gpus_come_from_zeus_and_the_old_ones_are_missing(monkeypatch):
    import zeus.device.gpu

    class Both:
        gpus = (FakeGpu(3_500), FakeGpu(None))

    monkeypatch.setattr(zeus.device.gpu, "get_gpus", lambda: Both)
    new, old = gpu_devices()
    assert (new.name, new.joules(), new.provenance) == ("gpu 0", 3.5, "measured")
    assert (old.joules(), old.provenance) == (None, "missing")
    assert "Old GPU" in old.reason


@settings(max_examples=50, deadline=None)
@given(
    modulus=st.integers(10, 10_000),
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


FAULTS = {
    "absent": (NullEnergy("cpu", "none", "buy one"), "none"),
    "backwards": (ReplayEnergy([5.0, 4.0]), "backwards"),
    "too-short": (ReplayEnergy([5.0, 5.0]), "too short"),
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
