"""The Ray engine: cells on a cluster's workers. The run folder must be on a file system every node sees.

A worker does with a cell what a local one does: claims it, does it, writes its record. The driver says which cell is
next, hears how they ended, and tries those again whose worker or node was lost.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import pickle
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deadweight.errors import InputError, MachineError
from deadweight.lab.attempt import AttemptResult, Job, Task, attempt
from deadweight.lab.bench import BEGINS, WAITS, Listener
from deadweight.lab.cell import Cell
from deadweight.lab.files import disk
from deadweight.lab.limits import Limits
from deadweight.lab.worker import limit_memory, prepare

_FRESH = 2.0  # seconds the cluster's size is believed


class Cluster:
    """Cells on Ray: `limits.cpus` and `limits.gpus` each; a timing cell takes a whole node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ray = import_ray()
        self._ours = False
        self._token: Path | None = None
        self._flights: dict[Any, Job] = {}
        self._began: dict[str, float] = {}
        self._overdue: set[str] = set()
        self._cells: dict[str, Cell] = {}
        self._size: tuple[float, int, float] = (-math.inf, 1, 1)

    def open(self, task: Task, listener: Listener | None) -> None:
        ray, self._listener = self._ray, listener
        if not ray.is_initialized():
            address = self._limits.address or os.environ.get("RAY_ADDRESS")
            local = {} if address else {"include_dashboard": False, "num_cpus": self._limits.jobs or None}
            try:
                ray.init(address=address, log_to_driver=False, logging_level="error", **local)
            except (ConnectionError, ValueError) as problem:
                raise MachineError(
                    f"no Ray cluster at {address or 'this machine'}: {problem}",
                    cure="start one with `ray start --head`, or leave --address out to use this machine alone",
                ) from problem
            self._ours = True
        folder = task.folder.resolve()
        self._token = folder / f".cluster-{secrets.token_hex(6)}"
        with disk(folder):
            self._token.touch(exist_ok=False)
        self._refuse_what_no_node_has()
        self._refuse_blind_nodes()
        home = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(Board).options(scheduling_strategy=home).remote()
        try:
            pickled = pickle.dumps(Task(task.work, folder, task.device, task.threads))
        except Exception as problem:
            raise InputError(
                f"the study's code cannot be sent to a cluster: {problem}",
                expected="functions and classes of a module that every node can import",
            ) from problem
        self._task = ray.put(pickled)
        self._remote = ray.remote(max_retries=0)(_attempt)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]

    def _refuse_what_no_node_has(self) -> None:
        """Ray would wait for such a node for ever, in silence."""
        limits = self._limits
        wanted = {"CPU": limits.cpus, "GPU": limits.gpus, "memory": limits.memory or 0}
        nodes = [node["Resources"] for node in self._nodes()]
        if not any(all(node.get(name, 0) >= much for name, much in wanted.items()) for node in nodes):
            asked = f"{limits.cpus:g} CPUs" + (f", {limits.gpus:g} GPUs" if limits.gpus else "")
            asked += f" and {limits.memory:,} bytes of memory" if limits.memory else ""
            raise MachineError(
                f"no node of the cluster has {asked} for a cell",
                expected="; ".join(sorted({f"at most {node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"
                                           for node in nodes})) or "a node that takes work",
                cure="ask for less with --cpus, --gpus or --memory; where nodes are started on demand, start one first",
            )  # fmt: skip

    def _refuse_blind_nodes(self) -> None:
        ray, affinity = self._ray, self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        look = ray.remote(num_cpus=0, max_retries=1)(_sees)
        asked = {
            look.options(scheduling_strategy=affinity(node["NodeID"], soft=False)).remote(str(self._token)): node
            for node in self._nodes()
        }
        blind = [node["NodeManagerHostname"] for answer, node in asked.items() if not self._answer(answer)]
        if blind:
            raise InputError(
                f"the run's folder is not seen from {', '.join(blind)}",
                expected="a folder on a file system that every node of the cluster shares",
                cure="choose such a folder with --out",
            )

    def _answer(self, asked: Any) -> bool:
        """What the node said; one that died meanwhile, which the cluster's list may not know yet, is not in the way."""
        died = self._ray.exceptions
        try:
            return bool(self._ray.get(asked))
        except (died.TaskUnschedulableError, died.NodeDiedError, died.WorkerCrashedError, died.LocalRayletDiedError):
            return True

    def _capacity(self) -> tuple[int, float]:
        """(cells that fit at a time, CPUs of the largest node), asked anew now and then: nodes come and go."""
        asked, slots, largest = self._size
        if time.monotonic() - asked > _FRESH:
            cpus = [node["Resources"]["CPU"] for node in self._nodes()] or [1.0]
            slots = sum(int(cpu // self._limits.cpus) if self._limits.cpus else 1 for cpu in cpus)
            largest = max(cpus)
            self._size = (time.monotonic(), slots, largest)
        return max(1, slots), largest

    def full(self) -> bool:
        slots = self._capacity()[0] + 1  # one more than fits shows an autoscaler that there is more to do
        return len(self._flights) >= (min(self._limits.jobs, slots) if self._limits.jobs else slots)

    def takes(self, job: Job) -> bool:
        return True

    def start(self, job: Job) -> None:
        needed = {"num_cpus": self._capacity()[1] if job.alone else self._limits.cpus, "num_gpus": self._limits.gpus}
        if self._limits.memory is not None:
            needed["memory"] = self._limits.memory
        cell = job.cell
        self._cells[cell.key] = cell
        self._began.pop(cell.key, None)
        flight = self._remote.options(name=cell.label, **needed).remote(
            job, [self._task], self._board, str(self._token), self._limits.memory
        )
        self._flights[flight] = job

    def endings(self, seconds: float) -> list[tuple[str, AttemptResult]]:
        if not self._flights:
            time.sleep(seconds)
            return []
        flights = list(self._flights)
        self._ray.wait(flights, num_returns=1, timeout=seconds)
        landed, _ = self._ray.wait(flights, num_returns=len(flights), timeout=0)
        self._read_board()
        over = []
        for flight in landed:
            key = self._flights.pop(flight).cell.key
            over.append((key, self._ending(flight, key)))
        self._cancel_overdue()
        return over

    def _ending(self, flight: Any, key: str) -> AttemptResult:
        took = time.monotonic() - self._began.get(key, time.monotonic())
        try:
            ending: AttemptResult = self._ray.get(flight)
            return ending
        except self._ray.exceptions.RayError as problem:
            if key in self._overdue:
                self._overdue.discard(key)
                limit = self._limits.timeout
                return AttemptResult("overdue", took, f"took longer than {limit:g} s, the time a cell is given")
            said = str(problem).strip().splitlines() or [""]
            return AttemptResult(
                "lost", took, f"its worker or node was lost ({type(problem).__name__}: {said[0][:200]})"
            )

    def _read_board(self) -> None:
        for key, text, done in self._ray.get(self._board.drain.remote()):
            if text in (None, BEGINS):
                self._began[key] = time.monotonic()
            elif text == WAITS:  # waiting for the machine is not the cell's own time
                self._began.pop(key, None)
            if text is not None and self._listener is not None and key in self._cells:
                self._listener.note(self._cells[key], text, done)

    def _cancel_overdue(self) -> None:
        if self._limits.timeout is None:
            return
        for flight, job in self._flights.items():
            key = job.cell.key
            if key not in self._overdue and time.monotonic() - self._began.get(key, math.inf) > self._limits.timeout:
                self._overdue.add(key)
                self._ray.cancel(flight, force=True)

    def close(self) -> None:
        if not self._ray.is_initialized():
            return
        for flight in self._flights:
            self._ray.cancel(flight, force=True)
        self._flights.clear()
        if self._token is not None:
            self._token.unlink(missing_ok=True)
        if hasattr(self, "_board"):
            self._ray.kill(self._board)
        if self._ours:
            self._ray.shutdown()


class Board:
    """An actor on the driver's node: what cells say about their progress, the latest of each."""

    def __init__(self) -> None:
        self._notes: dict[str, tuple[str, str | None, float | None]] = {}
        self._begun: list[tuple[str, None, None]] = []

    def begin(self, key: str) -> None:
        self._begun.append((key, None, None))

    def post(self, key: str, text: str, done: float | None) -> None:
        self._notes[key] = (key, text, done)

    def drain(self) -> list[tuple[str, str | None, float | None]]:
        told = [*self._begun, *self._notes.values()]
        self._notes, self._begun = {}, []
        return told


class _Notes:
    """In a worker: posts a cell's notes, none that comes right after another."""

    def __init__(self, board: Any) -> None:
        self._board, self._last = board, 0.0

    def note(self, cell: Cell, text: str, done: float | None) -> None:
        if time.monotonic() - self._last > 0.5 or text in (WAITS, BEGINS):
            self._last = time.monotonic()
            self._board.post.remote(cell.key, text, done)


_KEPT: dict[str, Task] = {}  # in a worker: the task of the run it works for, with what its study has loaded


def _attempt(job: Job, held: list[Any], board: Any, token: str, memory: int | None) -> AttemptResult:
    """In a worker: one attempt at a cell."""
    if not _sees(token):  # a node that joined later, or a folder that went away
        return AttemptResult("lost", 0.0, f"the run's folder is not seen from {os.uname().nodename}")
    if token not in _KEPT:
        _KEPT.clear()
        _KEPT[token] = pickle.loads(import_ray().get(held[0]))  # noqa: S301  # from our own driver
        limit_memory(memory)
    prepare(_KEPT[token])
    board.begin.remote(job.cell.key)
    return attempt(job, _KEPT[token], _Notes(board))


def _sees(token: str) -> bool:
    return Path(token).is_file()


def import_ray() -> Any:
    """Ray, which calls nobody and finds no half-installed AMD library in its way.

    Raises
    ------
    InputError
        Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if importlib.util.find_spec("ray") is None:
        raise InputError("the executor 'ray' without Ray", expected="Ray", cure="pip install 'deadweight[ray]'")
    if "ray" not in sys.modules and _amdsmi_is_broken():
        sys.modules["amdsmi"] = None  # type: ignore[assignment]  # Python's way to say: not to be had
        here = str(Path(__file__).parent / "stand_ins")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    ray = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")
    return ray


def _amdsmi_is_broken() -> bool:
    """Whether amdsmi (zeus brings it) is installed without the library it is a door to."""
    if "amdsmi" in sys.modules or importlib.util.find_spec("amdsmi") is None:
        return False
    return subprocess.run([sys.executable, "-c", "import amdsmi"], capture_output=True, check=False).returncode != 0
