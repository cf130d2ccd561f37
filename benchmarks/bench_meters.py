"""What measuring costs, ours beside zeus' monitor and codecarbon's tracker.

Two figures a meter: the processor time it takes itself, threads included, over two seconds in which the process does
nothing else (this holds on a busy machine too); and the same work bare and under it in turns (this does not: the row
"nothing" shows the noise). ``--own`` measures the first alone.

The counters are a RAPL tree of files (two packages with memory), read as a real one is, and a device whose power is
sampled ten times a second, as a GPU's is; whatever else the machine has is read as well. The goal is below 1 %.

codecarbon is not installed with deadweight: pip install --target DIR codecarbon, and run with PYTHONPATH=DIR.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from side_by_side import where

from deadweight.meters import ReplayEnergy, energy_devices, measure
from deadweight.meters.rapl import rapl_devices

WINDOW = 0.5  # seconds of work a round
ROUNDS = 11
OWN = 2.0  # seconds at rest under the meter


def work_of(seconds: float) -> Callable[[], None]:
    """Matrix products that take about so long on this machine."""
    left = torch.randn(256, 256)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.3:
        torch.mm(left, left)
        count += 1
    times = int(count * seconds / 0.3)

    def work() -> None:
        for _ in range(times):
            torch.mm(left, left)

    return work


def tree(root: Path) -> Path:
    """RAPL as the kernel shows it."""
    for package in range(2):
        for zone, name in (("", f"package-{package}"), (f"/intel-rapl:{package}:0", "dram")):
            folder = root / f"intel-rapl:{package}{zone}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(name)
            (folder / "energy_uj").write_text("123456789")
            (folder / "max_energy_range_uj").write_text("262143328850")
    return root


@contextmanager
def zeus_window(monitor: Any) -> Any:
    monitor.begin_window("work")
    yield
    monitor.end_window("work")


@contextmanager
def codecarbon_tracker(package: Any) -> Any:
    tracker = package.OfflineEmissionsTracker(
        country_iso_code="FRA", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    tracker.start()
    yield tracker
    tracker.stop()


def meters(root: Path) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    sampled = ReplayEnergy([1.0], watts=[200.0], name="sampled")
    found: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "nothing (the noise of this comparison)": nullcontext,
        "ours, time and memory": measure,
        "ours, with counters and sampled power": lambda: measure([*rapl_devices(root), sampled]),
        "ours, finding this machine's counters anew": lambda: measure([*energy_devices()]),
    }
    try:
        monitor = importlib.import_module("zeus.monitor").ZeusMonitor(gpu_indices=[], log_file=None)
        found["zeus' ZeusMonitor"] = lambda: zeus_window(monitor)
    except Exception as problem:  # whatever it raises on a machine without GPU and RAPL
        print(f"zeus' ZeusMonitor does not start here: {type(problem).__name__}: {problem}")
    if importlib.util.find_spec("codecarbon") is None:
        print("codecarbon is not here: pip install --target DIR codecarbon, PYTHONPATH=DIR")
    else:
        package = importlib.import_module("codecarbon")
        with codecarbon_tracker(package) as tracker:
            time.sleep(0.2)
        if hasattr(tracker, "final_emissions_data"):
            found["codecarbon's tracker"] = lambda: codecarbon_tracker(package)
        else:
            print("codecarbon's tracker did not start: it logs why; most often a package it needs is not installed")
    return found


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    logging.disable(logging.CRITICAL)  # both peers log at length
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    print(where())
    with tempfile.TemporaryDirectory() as name:
        for label, meter in meters(tree(Path(name))).items():
            told = own(meter)
            if "--own" not in sys.argv:
                told += "; " + paired(meter)
            print(f"{label}: {told}")
    said()


def own(meter: Callable[[], AbstractContextManager[Any]], rounds: int = 5) -> str:
    """Processor time of the meter alone, of all threads of this process and of the processes it started."""
    with meter():
        pass  # what it loads when it is first used
    taken = []
    for _ in range(rounds):
        before = spent()
        with meter():
            time.sleep(OWN)
        taken.append(spent() - before)
    found = statistics.median(taken)
    return f"{1000 * found:.2f} ms of processor time in {OWN:g} s ({100 * found / OWN:.3f} %)"


def spent() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def paired(meter: Callable[[], AbstractContextManager[Any]]) -> str:
    work, inside = work_of(WINDOW), []
    for number in range(ROUNDS + 1):
        taken = {}
        for metered in (True, False) if number % 2 else (False, True):
            with meter() if metered else nullcontext():
                taken[metered] = seconds_of(work)
        if number:
            inside.append(taken[True] / taken[False] - 1)
    low, high = (100 * float(end) for end in statistics.quantiles(inside, n=4)[::2])
    return f"work {100 * statistics.median(inside):+.2f} % (half of {ROUNDS} rounds within {low:+.2f} … {high:+.2f} %)"


def said() -> None:
    """What each says about the energy of the same second on this machine."""
    work = work_of(1.0)
    with measure(energy=True) as cost:
        work()
    print(f"ours says: {cost.energy.value} J, {cost.energy.provenance} ({cost.energy.reason})")
    try:
        monitor = importlib.import_module("zeus.monitor").ZeusMonitor(gpu_indices=[], log_file=None)
        monitor.begin_window("said")
        work()
        print(f"zeus says: {monitor.end_window('said').total_energy} J")
    except Exception as problem:
        print(f"zeus says: {type(problem).__name__}: {problem}")
    if importlib.util.find_spec("codecarbon") is not None:
        package = importlib.import_module("codecarbon")
        tracker = package.OfflineEmissionsTracker(
            country_iso_code="FRA", save_to_file=False, log_level="critical", allow_multiple_runs=True
        )
        tracker.start()
        work()
        tracker.stop()
        data = getattr(tracker, "final_emissions_data", None)
        if data is None:
            print("codecarbon says: nothing; its tracker did not start here")
            return
        print(
            f"codecarbon says: {3.6e6 * data.energy_consumed:.1f} J, of which memory {3.6e6 * data.ram_energy:.1f} J, "
            "from constants it does not call assumed"
        )


if __name__ == "__main__":
    main()
