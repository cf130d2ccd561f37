"""GPUs through zeus' own classes on a driver made of a dictionary, and chips made of fields."""

import time
from dataclasses import replace
from types import SimpleNamespace

import nvml
import pytest
import zeus.device.soc
from zeus.device.soc.common import ZeusSoCInitError

from deadweight.meters import EnergyMeter, energy_devices, measure
from deadweight.meters.gpus import chip_devices, gpu_devices


@pytest.fixture
def driver(monkeypatch):
    """NVML with two boards: one with a counter, one too old for it. Both draw 200 W."""
    return nvml.install(monkeypatch, nvml.board("New GPU"), nvml.board("Old GPU", nvml.PASCAL))


def test_a_board_with_a_counter_is_measured_and_an_old_one_integrated(driver):
    new, old = gpu_devices()
    assert [(one.name, one.provenance) for one in (new, old)] == [("gpu 0", "measured"), ("gpu 1", "integrated")]
    meter = EnergyMeter([new, old])
    meter.start()
    time.sleep(2.05)
    meter.stop()
    readings = meter.readings()
    expected = pytest.approx(200 * meter.seconds, rel=0.05)
    assert readings["gpu 0"].value == expected
    assert readings["gpu 1"].value == expected
    assert readings["gpu 1"].provenance == meter.total().provenance == "integrated"
    assert "Old GPU" in readings["gpu 1"].reason
    assert abs(meter.disagreement()["gpu 0"]) < 0.05


def test_counter_and_power_that_disagree_are_shown(driver):
    driver.counted = 160.0  # the counter misses a fifth of what the power says
    with measure(gpu_devices()[:1], device="cpu") as cost:
        time.sleep(1.05)
    assert cost.energy.value == pytest.approx(160 * cost.seconds, rel=0.05)
    assert cost.energy_disagreement["gpu 0"] == pytest.approx(0.25, abs=0.06)
    assert cost.energy_integrated["gpu 0"].provenance == "integrated"
    assert cost.as_json()["energy_disagreement"] == cost.energy_disagreement


def test_without_counter_and_power_a_board_is_missing(driver):
    driver.watts = None
    old = gpu_devices()[1]
    assert (old.provenance, old.joules()) == ("missing", None)
    assert "tells no power" in old.reason


VISIBLE = {
    "one": ("1", ["gpu 0"]), "turned": ("1,0", ["gpu 0", "gpu 1"]), "twice": ("0,0", ["gpu 0"]),
    "by-uuid": ("GPU-8f2b", ["gpu"]), "none": ("", ["gpu"]), "slice": ("MIG-1", ["gpu"]),
}  # fmt: skip


@pytest.mark.parametrize(("value", "names"), VISIBLE.values(), ids=VISIBLE)
def test_only_visible_boards_are_charged_each_once(driver, monkeypatch, value, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    devices = gpu_devices()
    assert [device.name for device in devices] == names
    if names == ["gpu"]:
        assert devices[0].provenance == "missing"
        assert devices[0].reason
    if value == "1,0":
        assert [device.provenance for device in devices] == ["integrated", "measured"]


def test_a_driver_that_fails_while_measuring_is_missing(driver):
    devices = gpu_devices()[:1]
    meter = EnergyMeter(devices)
    meter.start()
    driver.boards[0].arch = nvml.PASCAL  # from here on the driver refuses
    meter.stop()
    assert (meter.total().value, meter.total().provenance) == (None, "missing")


def test_a_sliced_board_says_that_its_counter_is_of_the_whole(monkeypatch):
    nvml.install(monkeypatch, nvml.board("whole", mig=False), nvml.board("sliced", mig=True), nvml.board("older"))
    whole, sliced, older = gpu_devices()
    assert (whole.reason, older.reason, sliced.provenance) == ("", "", "measured")
    assert "MIG" in sliced.reason
    with measure([replace(sliced, shortest=0.0)], device="cpu") as cost:
        time.sleep(0.05)
    assert cost.energy.value == pytest.approx(200 * cost.seconds, rel=0.2)
    assert "all its slices" in cost.energy.reason


def chip(monkeypatch, **millijoules):
    soc = SimpleNamespace(get_total_energy_consumption=lambda: SimpleNamespace(**millijoules))
    monkeypatch.setattr(zeus.device.soc, "get_soc", lambda: soc)
    return soc


def test_an_apple_chip_is_charged_by_its_parts_without_parts_of_parts(monkeypatch):
    chip(monkeypatch, cpu_total_mj=3_000, efficiency_cores_mj=[1_000], dram_mj=500, gpu_mj=None, ane_mj=0)
    devices = energy_devices()
    assert [device.name for device in devices] == ["chip cpu", "chip dram", "chip neural engine"]
    assert [device.joules() for device in devices] == [3.0, 0.5, 0.0]


def test_a_jetson_is_charged_as_a_whole(monkeypatch):
    chip(monkeypatch, cpu_energy_mj=1_000.0, total_energy_mj=4_000.0)
    (board,) = chip_devices()
    assert (board.joules(), board.provenance) == (4.0, "integrated")


def test_other_machines_have_no_chip(monkeypatch):
    def none():
        raise ZeusSoCInitError("none")

    monkeypatch.setattr(zeus.device.soc, "get_soc", none)
    assert chip_devices() == []
