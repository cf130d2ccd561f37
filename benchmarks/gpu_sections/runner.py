"""Each section in a process of its own, ended at its limit; the JSON is whole on disk after every row."""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from gpu_sections.plan import MISSING, Plan, Row, Section, fault, row

SCHEMA = 1
DONE, UNDER_WAY, LATE, DIED, LEFT_OUT, NO_GPU = "done", "under way", "late", "died", "left out", "no gpu"
LEAST = 5.0  # seconds; with less there is no use in beginning a section
PRELOAD = [  # imported once, in the server that the sections' processes are forked from
    "torch", "torch._dynamo", "transformers.models.llama.modeling_llama", "timm", "accelerate", "zeus.device.gpu",
    "deadweight.studies.attention.timing.subject", "deadweight.probes.profile", "deadweight.compression.compress",
    "gpu_sections.plan",
]  # fmt: skip


def run(
    sections: Mapping[str, Section], plan: Plan, out: Path, *, seconds: float, asked: list[str] | None = None
) -> dict[str, Any]:
    """Do the `asked` of the sections (None: all), in `seconds` all together; the document, which also lies in `out`.

    A section that is not asked for, or for which no time is left, is in it as ``left out``.
    """
    began = time.monotonic()
    document: dict[str, Any] = {
        "schema": SCHEMA, "rehearsal": plan.rehearsal, "device": plan.device, "complete": False, "sections": {},
    }  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def told(name: str, **changes: Any) -> None:
        document["sections"].setdefault(name, {"status": UNDER_WAY, "reason": "", "seconds": 0.0, "rows": []})
        document["sections"][name].update(changes)
        written(document, out)

    for name, section in sections.items():
        left = seconds - (time.monotonic() - began)
        if asked is not None and name not in asked:
            told(name, status=LEFT_OUT, reason="not asked for")
        elif left < LEAST:
            told(name, status=LEFT_OUT, reason=f"{seconds:g} s for all sections were over")
        else:
            told(name)
            _section(context, section, plan, min(section.seconds, left), lambda name=name, **new: told(name, **new))
    document["seconds"], document["complete"] = time.monotonic() - began, True
    written(document, out)
    return document


def _section(context: Any, section: Section, plan: Plan, limit: float, told: Any) -> None:
    """Start it, take its rows as they come, end it at `limit`."""
    rows: list[Row] = []
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(section, plan, theirs))
    process.start()  # the first one waits for what is imported ahead, which is no section's time
    began = time.monotonic()
    theirs.close()
    status, reason = LATE, f"ended after {limit:g} s; what it had told by then is kept"
    try:
        while (left := limit - (time.monotonic() - began)) > 0:
            if not ours.poll(left):
                break
            try:
                kind, value = ours.recv()
            except (EOFError, OSError):
                process.join(LEAST)
                status, reason = DIED, f"its process ended with exit code {process.exitcode}"
                break
            if kind == "row":
                rows.append(value)
                told(rows=rows, seconds=time.monotonic() - began)
            else:
                status, reason = kind, value
                break
    finally:
        process.kill()
        process.join()
        ours.close()
    told(status=status, reason=reason, rows=rows, seconds=time.monotonic() - began)


def _work(section: Section, plan: Plan, pipe: Connection) -> None:
    """In the section's own process: its rows, then how it ended."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # libraries' chatter would hide the run's own lines
    try:
        if plan.device == "cuda" and (why := without_gpu()):
            pipe.send(("row", row("gpu", MISSING, why)))
            pipe.send((NO_GPU, why))
            return
        work = section.load()
        gc.freeze()  # what was imported is no garbage, and need not be looked through after every row
        work(plan, lambda found: pipe.send(("row", found)))
        pipe.send((DONE, ""))
    except Exception as problem:
        told = fault("section", problem)
        pipe.send(("row", told))
        pipe.send(("failed" if told["status"] != MISSING else MISSING, told["reason"]))


def without_gpu() -> str:
    """Why no GPU can be used here; empty where one can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    try:
        torch.cuda.init()
        found = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as problem:
        return f"torch {torch.__version__} reaches no GPU: {' '.join(str(problem).split())[:200]}"
    return "" if found else f"torch {torch.__version__} sees no GPU"


def _follow_parent() -> None:
    """A run that is killed takes its section along."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def written(document: Mapping[str, Any], out: Path) -> None:
    """Under another name first, then renamed: whoever reads `out` finds a whole document."""
    new = out.with_name(out.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(_plain(document), file, indent=1, allow_nan=False)
        file.flush()
        with suppress(OSError):
            os.fsync(file.fileno())
    os.replace(new, out)


def _plain(value: Any) -> Any:
    """As JSON has it: what is no number, or not finite, as its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


__all__ = ["run", "without_gpu", "written"]
