"""Power at rest, work repeated until it can be measured, several processes, carbon: by hand-computed values."""

import time

import psutil
import pytest

import deadweight as dw
from deadweight.errors import InputError
from deadweight.meters import (
    EnergyMeter,
    ModelledEnergy,
    NullEnergy,
    Reading,
    ReplayEnergy,
    carbon,
    charge_once,
    energy_devices,
    idle_power,
    measure,
    measure_repeated,
    of_this_machine,
)


class Steady:
    """A counter that rises by `watts` a second."""

    provenance, modulus, reason, cure, scope = "measured", None, "", "", "all of it"

    def __init__(self, watts, name="steady", shortest=0.0):
        self.rise, self.name, self.shortest = watts, name, shortest

    def joules(self):
        return self.rise * time.perf_counter()


def test_rest_is_measured_before_taken_off_and_both_are_kept():
    device = ReplayEnergy([1.0, 3.0, 3.0, 10.0])  # 2 J at rest, then 7 J at work
    idle = idle_power([device], seconds=0.05)
    assert idle.total == Reading(2.0 / idle.seconds, "W", "measured")
    assert 0.05 <= idle.seconds < 5
    meter = EnergyMeter([device], idle=idle)
    meter.start()
    meter.stop()
    assert meter.total().value == 7.0
    assert meter.above_idle().value == pytest.approx(7.0 - 2.0 / idle.seconds * meter.seconds)
    with measure([Steady(5.0)], idle=idle_power([Steady(5.0)], seconds=0.01), device="cpu") as cost:
        time.sleep(0.01)
    told = cost.as_json()
    assert told["energy"]["value"] == cost.energy.value > told["energy_above_idle"]["value"]
    assert told["idle"]["watts"]["value"] == cost.idle.total.value
    assert told["power"]["value"] == pytest.approx(cost.energy.value / cost.seconds)
    assert told["energy_scope"] == {"steady": "all of it"}


def test_without_a_measured_rest_there_is_no_energy_above_it():
    with measure([Steady(5.0)], device="cpu") as cost:
        time.sleep(0.01)
    assert (cost.energy_above_idle.value, cost.energy_above_idle.provenance) == (None, "missing")
    assert "idle_power" in cost.energy_above_idle.cure
    other = idle_power([Steady(5.0, "another")], seconds=0.01)
    with measure([Steady(5.0)], idle=other, device="cpu") as cost:
        time.sleep(0.01)
    assert cost.energy_above_idle.value is None


def test_a_machine_without_counters_does_not_wait_to_be_at_rest():
    began = time.perf_counter()
    idle = idle_power([NullEnergy("cpu", "none here", "buy one")], seconds=60)
    assert time.perf_counter() - began < 5
    assert (idle.total.value, idle.total.unit, idle.total.provenance) == (None, "W", "missing")
    assert "none here" in idle.total.reason
    assert idle.as_json()["watts"]["value"] is None


def test_a_rest_that_was_modelled_makes_the_difference_modelled():
    idle = idle_power([ModelledEnergy(20.0, "me")], seconds=0.01)
    assert idle.total.provenance == "modelled"
    meter = EnergyMeter([ModelledEnergy(20.0, "me")], idle=idle)
    meter.start()
    time.sleep(0.02)
    meter.stop()
    assert meter.above_idle().provenance == "modelled"
    assert meter.above_idle().value == pytest.approx(0.0, abs=0.05)


def test_short_work_is_repeated_until_the_counter_can_see_it():
    calls = []
    found = measure_repeated(lambda: calls.append(time.sleep(0.002)), energy=[Steady(10.0, shortest=0.1)], device="cpu")
    assert found.whole.seconds >= 0.1
    assert 2 <= found.times <= len(calls)
    assert found.whole.energy.value >= 10 * found.whole.seconds
    assert found.energy.value == pytest.approx(found.whole.energy.value / found.times)


def test_work_without_counters_is_not_repeated_for_them():
    calls = []
    found = measure_repeated(lambda: calls.append(1), energy=[NullEnergy(shortest=99.0)], device="cpu")
    assert (found.times, len(calls)) == (1, 2)
    assert found.energy.value is None


@pytest.mark.parametrize(
    "launcher", ["LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID"]
)
def test_one_process_of_a_machine_reads_the_counters(monkeypatch, launcher):
    monkeypatch.setenv("LOCAL_RANK", "0")  # one launcher within another: the other's number counts as well
    monkeypatch.setenv(launcher, "1")
    (device,) = energy_devices()
    assert device.provenance == "missing"
    assert "process 0" in device.reason
    monkeypatch.setenv(launcher, "0")
    assert [device.name for device in energy_devices()] != [device.name for device in [device]]


def test_a_device_several_processes_read_is_charged_once():
    def read(**joules):
        return {
            name: Reading(value, "J", "measured") if value else Reading.missing("J", "no permission")
            for name, value in joules.items()
        }

    processes = [
        {f"one: {name}": r for name, r in read(cpu=10.0, gpu_0=7.0).items()},
        {f"one: {name}": r for name, r in read(cpu=9.0, gpu_1=5.0).items()},
        {f"two: {name}": r for name, r in read(cpu=None).items()},
        of_this_machine({"charged elsewhere": Reading.missing("J", "process 0 reads")}),
    ]
    charged = charge_once(processes)
    assert {name: reading.value for name, reading in charged.items()} == {
        "one: cpu": 10.0, "one: gpu_0": 7.0, "one: gpu_1": 5.0, "two: cpu": None,
    }  # fmt: skip


def test_carbon_comes_from_a_given_intensity_alone():
    grams = carbon(Reading(7.2e6, "J", "measured"), 50.0, source="the grid's operator")
    assert (grams.value, grams.unit, grams.provenance) == (100.0, "g CO2e", "modelled")
    assert "50 g/kWh given by the grid's operator" in grams.reason
    lost = carbon(Reading.missing("J", "no counter", "buy one"), 50.0, source="me")
    assert (lost.value, lost.provenance, lost.reason) == (None, "missing", "no counter")
    for energy, intensity, source in (
        (Reading(1.0, "W", "measured"), 50.0, "me"),
        (Reading(1.0, "J", "measured"), 0.0, "me"),
        (Reading(1.0, "J", "measured"), 50.0, " "),
    ):
        with pytest.raises(InputError):
            carbon(energy, intensity, source=source)


def test_a_power_model_rises_with_the_load(monkeypatch):
    busy = psutil.cpu_times()._replace(idle=0.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: busy)
    device = ModelledEnergy(100.0, "me", idle_watts=20.0)
    before = device.joules()
    busy = busy._replace(user=busy.user + psutil.cpu_count())  # a second at full load
    assert 80 <= device.joules() - before < 90  # and 20 W meanwhile
    assert "20 to 100 W by load assumed by me" in device.reason


@pytest.mark.parametrize(
    "options",
    [
        {"watts": 0.0, "author": "me"},
        {"watts": 10.0, "author": ""},
        {"watts": 10.0, "author": "me", "idle_watts": 11.0},
        {"watts": 10.0, "author": "me", "idle_watts": -1.0},
    ],
)
def test_power_models_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError):
        ModelledEnergy(**options)


def test_power_between_two_samples_is_their_mean():
    """A trapezoid: of the first power alone, or the second, the joules would be none or twice as many."""
    meter = EnergyMeter([ReplayEnergy([], watts=[0.0, 200.0], provenance="integrated")])
    meter.start()
    meter.stop()
    (track,) = meter._tracks
    assert track.integral / 200 == pytest.approx(meter.seconds / 2, abs=0.05)
    assert track.samples == 2
    assert track.integral > 0


def test_replayed_power_stands_in_for_a_counter():
    device = ReplayEnergy([], watts=[100.0, 100.0], provenance="integrated")
    with measure([device], device="cpu") as cost:
        time.sleep(0.05)
    assert cost.energy.provenance == "integrated"
    assert 100 * cost.seconds <= cost.energy.value < 100 * (cost.seconds + 1)  # edges on a busy machine
    with pytest.raises(InputError):
        ReplayEnergy([])
    with pytest.raises(InputError):
        ReplayEnergy([11.0], modulus=10.0)


def test_what_needs_no_hardware_is_at_the_door():
    assert {dw.NullEnergy, dw.ReplayEnergy, dw.ModelledEnergy} == {NullEnergy, ReplayEnergy, ModelledEnergy}
    assert dw.measure_repeated is measure_repeated
    assert dw.idle_power is idle_power
