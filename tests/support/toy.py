"""Cells that do as their `what` says, and a runner of them as a program of its own: ``python -m toy FOLDER LOG …``."""

import argparse
import os
import signal
import time
from pathlib import Path

import torch

from deadweight.lab import Cell, Outcome, Store, run_cells


def cells(count, pause=0.0, **more):
    """A chain in twos: every odd cell needs the even one before it."""
    made = []
    for number in range(count):
        needs = (made[-1].key,) if number % 2 else ()
        made.append(Cell("toy", "square", {**more, "number": number, "pause": pause}, needs=needs, seconds=pause))
    return made


def one(number, what=None, name="", **more):
    named = {"name": name} if name else {}
    return Cell("toy", "square", {**named, "number": number, "what": what}, **more)


def work(cell, bench):
    number, what = cell.params["number"], cell.params.get("what")
    with open(bench.store.folder.with_suffix(".log"), "a") as log:
        log.write(cell.key + "\n")
    bench.note("half way", 0.5)
    if what == "killed once" and not (bench.folder / "died").exists():
        (bench.folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "gone":
        os._exit(7)
    if what == "hang":
        time.sleep(600)
    if what == "second fails" and os.environ.get("RANK") == "1":
        raise RuntimeError("out of luck in the second process")
    if what == "raise":
        raise RuntimeError("out of luck")
    if what == "not a number":
        return Outcome({"square": float("nan")})
    if what == "eat":
        hoard = [torch.ones(2**24) for _ in range(200)]
        return Outcome({"eaten": len(hoard)})
    time.sleep(cell.params.get("pause", 0.0))
    (bench.folder / "curve.txt").write_text(str(number))
    before = [bench.record_of(key).result["square"] for key in cell.needs]
    product = torch.randn(64, 64) @ torch.randn(64, 64)
    return Outcome(
        {"square": number**2, "before": before, "drawn": product.sum().item(), "mean": product.mean().item()}
    )


def span(cell, bench):
    began = time.monotonic()
    time.sleep(0.15)
    return Outcome({}, {"began": began, "ended": time.monotonic()})


def warm():
    """Importing this module is what takes the time."""


def blind(token):
    """A node that does not see the run's folder."""
    return False


def results(folder):
    """What a run is compared by: each record's cell and result, by key."""
    store = Store(folder)
    found = {key: store.look(key) for key in store.folders()}
    return {key: (record.cell.identity, record.result) for key, record in found.items() if record is not None}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    from deadweight.lab.engines import EXECUTORS
    from deadweight.lab.limits import Limits

    engine = EXECUTORS.get("local")(Limits(jobs=given.jobs))
    run_cells(cells(given.count, given.pause), work, Store(given.folder), engine=engine)


if __name__ == "__main__":
    main()
