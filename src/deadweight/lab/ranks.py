"""Training cells on several processes: those that torchrun, `accelerate launch` or Slurm started together.

The first process leads: it claims cells, does those that need no others, writes every record. For a cell that trains
through accelerate it calls the others, who do the same work on their share of each batch and write nothing. What is
said between them is a cell's key and how it ended, through the store the launcher set up; no objects travel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from deadweight.errors import CellFailed, MachineError
from deadweight.lab.attempt import Task, Work, seed_from
from deadweight.lab.bench import Listener, Workbench
from deadweight.lab.cell import Cell
from deadweight.lab.executor import InProcess
from deadweight.lab.records import Outcome
from deadweight.lab.store import Store

_PATIENCE = timedelta(minutes=5)  # of one look; looking goes on
_GRACE = 30.0  # seconds the others have to fail as well, once one has failed
_OVER = "over"


def started_together() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def leads() -> bool:
    """Whether this process is the one that claims, writes and tells."""
    return started_together() == 1 or os.environ["RANK"] == "0"


class Talk:
    """What the processes say to each other: turn by turn a cell's key, and how each process fared."""

    def __init__(self) -> None:
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, self.rank, self.size = next(rendezvous("env://"))
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store: Any = PrefixStore(f"deadweight/{again}", store)
        self._turn = 0

    def call(self, key: str) -> None:
        """The leader names the next cell."""
        self._turn += 1
        self._store.set(f"turn/{self._turn}", key)

    def listen(self) -> str:
        """The next cell's key, however long the leader is busy with others."""
        self._turn += 1
        self._wait([f"turn/{self._turn}"], None)
        return str(self._store.get(f"turn/{self._turn}").decode())

    def agree(self, fine: bool) -> bool:
        """Whether all processes did their part of this turn; raises MachineError where some never say."""
        self._store.set(f"end/{self._turn}/{self.rank}", "done" if fine else "failed")
        names = [f"end/{self._turn}/{rank}" for rank in range(self.size)]
        if not self._wait(names, None if fine else _GRACE):
            lost = TimeoutError("a process failed while others wait for its share of a batch")
            raise MachineError(
                "the processes of a training cell no longer agree",
                expected="all of them to end a cell alike",
                cure="start the same command again: it goes on from the last checkpoint",
            ) from lost
        return all(self._store.get(name) == b"done" for name in names)

    def _wait(self, names: Sequence[str], seconds: float | None) -> bool:
        began = time.monotonic()
        while True:
            pause = _PATIENCE if seconds is None else timedelta(seconds=seconds)
            with suppress(torch.distributed.DistStoreError):
                self._store.wait(list(names), pause)
                return True
            if seconds is not None and time.monotonic() - began >= seconds:
                return False


class Leader(InProcess):
    """One cell after another in the first process; cells that are spread, together with the others."""

    def __init__(self) -> None:
        self._talk, self._dismissed = Talk(), False

    def open(self, task: Task, listener: Listener | None) -> None:
        _own_accelerator(task.device)
        super().open(replace(task, work=self._together(task.work)), listener)

    def _together(self, work: Work) -> Work:
        def lead(cell: Cell, bench: Workbench) -> Outcome:
            if not cell.spread:
                return work(cell, bench)
            self._talk.call(cell.key)
            try:
                outcome = work(cell, bench)
            except Exception:
                self._talk.agree(False)
                raise
            if not self._talk.agree(True):
                raise CellFailed("another process of this training failed; its own output says why")
            return replace(outcome, context={**outcome.context, "processes": self._talk.size})

        return lead

    def close(self) -> None:
        """Let the others go, once; also where there was nothing to do."""
        if self._dismissed:
            return
        self._dismissed = True
        self._talk.call(_OVER)
        with suppress(MachineError):
            self._talk.agree(True)
        _leave()


def follow(cells: Sequence[Cell], work: Work, folder: Path, device: str) -> None:
    """In every process but the first: do what the leader calls for, until it says that all is over."""
    _own_accelerator(device)
    talk, store, known = Talk(), Store(folder), {cell.key: cell for cell in cells}
    while (key := talk.listen()) != _OVER:
        cell = known[key]
        needs = {need: known[need] for need in cell.needs if need in known}
        bench = Workbench(store.folder_of(key), store, cell, device, None, needs, leads=False)
        seed_from(cell)
        try:
            work(cell, bench)
        except Exception:
            talk.agree(False)
        else:
            talk.agree(True)
    talk.agree(True)
    _leave()


def _own_accelerator(device: str) -> None:
    """Processes of one node share its accelerators out by their local rank."""
    if torch.device(device).type != "cpu" and torch.accelerator.device_count() > 1:
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
