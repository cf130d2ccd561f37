"""Time, processor time and memory of work whose cost is known."""

from __future__ import annotations

import mmap
import threading
import time

import pytest
import torch

from deadweight.errors import InputError
from deadweight.meters import ReplayEnergy, machine, machine_peak, measure
from deadweight.meters import memory as memory_module

MEGABYTE = 1 << 20


def touch(megabytes):
    """Fresh pages from the kernel, all written to; malloc may hand out pages that are resident already."""
    pages = mmap.mmap(-1, megabytes * MEGABYTE)
    for _ in range(megabytes):
        pages.write(b"x" * MEGABYTE)
    return pages


def test_seconds_are_time_and_cpu_seconds_are_work():
    with measure() as slept:
        time.sleep(0.2)
    assert 0.19 < slept.seconds < 2
    assert slept.cpu_seconds < 0.15

    def spin():
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    with measure() as worked:
        thread = threading.Thread(target=spin)
        thread.start()
        thread.join()
    assert worked.cpu_seconds > 0.09  # another thread's work counts too
    assert worked.cores_busy == pytest.approx(worked.cpu_seconds / worked.seconds)


@pytest.fixture(params=["high-water mark", "sampled"])
def source(request, monkeypatch):
    if request.param == "sampled":
        monkeypatch.setattr(memory_module, "resettable", lambda: False)
    elif not memory_module.resettable():
        pytest.skip("this kernel does not let a process reset its high-water mark")
    return request.param


def test_peak_memory_is_what_the_block_added_at_its_highest(source):
    keep = touch(64)
    with measure(device="cpu") as cost:
        passing = touch(96)
        time.sleep(0.05)
        passing.close()
    assert cost.peak_source == source
    assert 90 * MEGABYTE < cost.peak_bytes < 140 * MEGABYTE
    assert len(keep) == 64 * MEGABYTE


def test_an_inner_measurement_does_not_hide_the_outer_peak(source):
    with measure(device="cpu") as outer:
        passing = touch(96)
        time.sleep(0.05)
        passing.close()
        with measure(device="cpu") as inner:
            small = touch(16)
            time.sleep(0.05)
            small.close()
    assert outer.peak_bytes > 90 * MEGABYTE
    assert inner.peak_bytes < 48 * MEGABYTE
    assert outer.seconds > inner.seconds


def test_a_cost_is_read_after_its_block_even_if_the_block_raised():
    threads = threading.active_count()
    work = measure([ReplayEnergy([1.0, 3.0], modulus=10.0)])
    cost = work.__enter__()
    with pytest.raises(InputError):
        _ = cost.seconds
    work.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert cost.seconds >= 0
    assert cost.energy.value == 2.0
    assert cost.energy_parts["replay"].value == 2.0
    assert cost.as_json()["energy"]["provenance"] == "measured"
    assert threading.active_count() == threads


def test_energy_not_asked_for_is_missing():
    with measure() as cost:
        pass
    assert (cost.energy.value, cost.energy.provenance) == (None, "missing")
    assert "energy=True" in cost.energy.cure


def test_a_measurement_is_used_once():
    work = measure()
    with work:
        pass
    with pytest.raises(InputError), work:
        pass


def test_the_machine_is_described_and_its_peak_is_plausible():
    facts = machine()
    assert facts["memory_bytes"] > 1 << 28
    assert facts["processor"]
    assert facts["threads"] == torch.get_num_threads()
    assert 1e8 < machine_peak(size=256, seconds=0.05) < 1e15
    with pytest.raises(InputError):
        machine_peak(torch.int64)
