"""RAPL on a machine made of files: what is charged, wrap-around, permissions."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from deadweight.meters import EnergyMeter, Reading, rapl
from deadweight.meters import energy as energy_module
from deadweight.meters.rapl import rapl_devices


def charged(*devices):
    meter = EnergyMeter(devices)
    meter.start()
    meter.stop()
    return meter


def tree(root):
    def zone(path, name, microjoules, span=262_143_328_850):
        folder = root / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text(f"{span}\n")
        return folder / "energy_uj"

    zone.root = root
    return zone


@pytest.fixture
def powercap(tmp_path):
    return tree(tmp_path)


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


@pytest.fixture
def nobody(tmp_path_factory):
    """Not root for the length of a test: to root nothing is forbidden."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.fixture
def open_folder():
    """A folder everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # the temporary folder of tests is closed to others
        Path(name).chmod(0o755)
        yield Path(name)


def test_rapl_without_permission_is_missing_with_a_cure(open_folder, request):
    powercap = tree(open_folder)
    powercap("intel-rapl:0", "package-0", 1).chmod(0)
    powercap("intel-rapl:0/intel-rapl:0:0", "dram", 2_000_000)
    request.getfixturevalue("nobody")
    package, dram = rapl_devices(open_folder)
    assert package.joules() is None
    assert "no permission to read" in package.reason
    assert f"sudo chmod -R a+r {open_folder}/*/energy_uj" in package.cure
    total = charged(package).total()
    assert (total.value, total.provenance, total.cure) == (None, "missing", package.cure)
    assert dram.joules() == 2.0  # what may be read is read


def test_permission_taken_away_meanwhile_is_missing(open_folder, request):
    file = tree(open_folder)("intel-rapl:0", "package-0", 1)
    request.getfixturevalue("nobody")
    meter = EnergyMeter(rapl_devices(open_folder))
    meter.start()
    os.seteuid(0)
    file.chmod(0)
    os.seteuid(65534)
    meter.stop()
    assert (meter.total().value, meter.total().provenance) == (None, "missing")


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


def test_several_turns_of_the_counter_are_seen_by_the_watching_thread(powercap, monkeypatch):
    monkeypatch.setattr(energy_module, "POLL", 0.005)
    file = powercap("intel-rapl:0", "package-0", 0, span=1_000_000)
    meter = EnergyMeter(rapl_devices(powercap.root))
    meter.start()
    for microjoules in (600_000, 200_000, 800_000, 400_000):  # 0.6 J per step, twice around
        file.write_text(f"{microjoules}\n")
        seen = time.monotonic() + 30
        while meter._tracks[0]._last != microjoules / 1e6 and time.monotonic() < seen:
            time.sleep(0.001)
    meter.stop()
    assert meter._tracks[0].total == pytest.approx(2.4)


def test_a_zone_that_makes_no_sense_is_missing_and_the_others_stand(powercap):
    powercap("intel-rapl:0", "package-0", 3_000_000)
    powercap("intel-rapl:1", "package-1", "no number")
    (powercap.root / "intel-rapl:2").mkdir()  # a zone without a name
    sound, broken = rapl_devices(powercap.root)
    assert sound.joules() == 3.0
    assert (broken.provenance, broken.joules()) == ("missing", None)
    assert "cannot be read" in broken.reason


def test_windows_shorter_than_the_counter_supports_are_refused(powercap):
    file = powercap("intel-rapl:0", "package-0", 0)
    meter = EnergyMeter(rapl_devices(powercap.root))
    meter.start()
    file.write_text("5000\n")
    meter.stop()
    total = meter.total()
    assert (total.value, total.provenance) == (None, "missing")
    assert "too short" in total.reason
    assert "measure_repeated" in total.cure


def test_zones_of_one_name_are_told_apart(powercap):
    powercap("intel-rapl:0", "package-0", 5)
    powercap("intel-rapl:1", "package-0", 7)
    names = [device.name for device in rapl_devices(powercap.root)]
    assert names == ["cpu package-0 (intel-rapl:0)", "cpu package-0 (intel-rapl:1)"]


def test_zones_that_show_one_counter_are_charged_once(powercap):
    dies = [powercap(f"intel-rapl:{n}", f"package-0-die-{n}", 3_000_000) for n in range(3)]
    other = powercap("intel-rapl:3", "package-1", 9_000_000)
    meter = EnergyMeter(rapl_devices(powercap.root))
    meter.start()
    for file in (*dies, other):
        file.write_text(str(int(file.read_text()) + 10_000_000))
    while True:
        meter.stop()
        if meter.seconds >= meter.devices[0].shortest:
            break
    assert meter.total().value == pytest.approx(20.0)
    assert "package-0-die-2 shows the same counter" in meter.scope["cpu package-0-die-0"]


class Moving:
    """A counter that moves whenever it is looked at."""

    def __init__(self, name, start, step):
        self.name, self.value, self.step = name, start, step

    def joules(self):
        self.value += self.step
        return self.value


class Mirror:
    def __init__(self, name, of):
        self.name, self.of = name, of

    def joules(self):
        return self.of.value + self.of.step / 2


def test_packages_are_one_where_their_counters_are_seen_to_move_together():
    first = Moving("cpu package-0", 500.0, 0.01)
    apart = Moving("cpu package-1", 900.0, 0.01)
    assert rapl._once([first, Mirror("cpu package-1", first)]) == [first]
    assert rapl._once([first, apart]) == [first, apart]


def test_packages_that_stand_still_at_one_number_are_two(powercap):
    for n in range(2):
        powercap(f"intel-rapl:{n}", f"package-{n}", 7)
    assert len(rapl_devices(powercap.root)) == 2


def test_a_range_the_kernel_could_not_tell_is_none(powercap):
    powercap("intel-rapl:0", "package-0", 5, span=0)
    powercap("intel-rapl:0/intel-rapl:0:0", "dram-0", 2)
    assert [device.modulus for device in rapl_devices(powercap.root)] == [None, 262_143.32885]
