"""A worker of the race: a process of its own that holds one subject and does what it is told, one call at a time."""

from __future__ import annotations

import gc
import multiprocessing.connection
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from deadweight.studies.attention_subject import DECODED, Built, Subject

from deadweight.lab import Json
from deadweight.lab.worker import die_with_parent, limit_memory
from deadweight.meters import EnergyDevice, IdlePower, energy_devices, measure
from deadweight.meters.clock import Stopwatch
from deadweight.meters.memory import MemoryMeter

METERED = 0.02  # seconds a metered window has at least, so that the meter's edges are seen against something


@dataclass(frozen=True)
class Entry:
    """What a worker is started with.

    threads: of torch. memory: bytes it may allocate, None for all. devices: energy counters, None for the machine's;
    model: what is charged beside those that can be read, such as a power model.
    """

    subject: Subject
    threads: int = 1
    memory: int | None = None
    devices: Sequence[EnergyDevice] | None = None
    model: Sequence[EnergyDevice] = ()

    def charged(self) -> list[EnergyDevice]:
        """The devices of the metered rounds."""
        found = list(energy_devices() if self.devices is None else self.devices)
        if not self.model:
            return found
        return [*(device for device in found if device.provenance != "missing"), *self.model]


def serve(pipe: multiprocessing.connection.Connection, entry: Entry) -> None:
    """Build the subject, then answer calls until the pipe ends. What raises is told and ends nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    threading.Thread(target=die_with_parent, daemon=True).start()
    if entry.memory is not None:
        limit_memory(entry.memory)
    torch.set_num_threads(entry.threads)
    gc.freeze()  # what was inherited stays: collections that walk through it would show in the times
    runner = Runner(entry)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            name, arguments = pipe.recv()
            try:
                told: tuple[str, Json] = ("done", getattr(runner, name)(**arguments))
            except Exception as problem:
                told = ("failed", "".join(traceback.format_exception_only(problem)).strip())
            pipe.send(told)


class Runner:
    """The calls a worker answers; the same object does them in a test without a process."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.built: Built | None = None
        self._devices: list[EnergyDevice] | None = None  # looked for once: finding them takes longer than reading

    def first(self) -> dict[str, Json]:
        """Build, count, and take the first step under the memory meter, when nothing freed can be used again."""
        self.built = built = self.entry.subject.build()
        facts = built.facts()
        built.small()
        memory = MemoryMeter(None if built.device.type == "cpu" else built.device)
        memory.start()
        built.step()
        memory.stop()
        return {"facts": facts, "peak_bytes": memory.peak_bytes, "peak_source": memory.source, "kernel": built.kernel}

    def turn(self) -> dict[str, Json]:
        """Seconds of a training step, of reading all tokens and of one decoded token, nothing sampled meanwhile."""
        built = self._built()
        self._wake()
        told: dict[str, Json] = {"step": self._seconds(built.step), "prefill": self._seconds(built.prefill)}
        told["kernel"] = built.kernel
        built.decode()  # the cache grows into its room
        told["decode"] = self._seconds(lambda: [built.decode() for _ in range(DECODED)]) / DECODED
        self._rest()
        return told

    def meter(self, idle: IdlePower | None, seconds: float, metered_first: bool) -> dict[str, Json]:
        """The same training steps twice, bare and under the full meter: enough of them for the slowest counter."""
        built = self._built()
        self._wake()
        once = self._seconds(built.step)
        times = max(1, int(1.05 * max(seconds, METERED) / once) + 1) if once < max(seconds, METERED) else 1
        if self._devices is None:
            self._devices = self.entry.charged()
        devices = self._devices

        def work() -> None:
            for _ in range(times):
                built.step()

        def under_the_meter() -> dict[str, Json]:
            began = time.perf_counter()
            with measure(devices, device=built.device, idle=idle) as cost:
                work()
            edges = time.perf_counter() - began - cost.seconds
            return {**cost.as_json(), "edges_seconds": edges}

        if metered_first:
            told, bare = under_the_meter(), self._seconds(work)
        else:
            bare, told = self._seconds(work), under_the_meter()
        self._rest()
        return {**told, "bare_seconds": bare, "times": times}

    def _built(self) -> Built:
        if self.built is None:
            raise RuntimeError("nothing was built")
        return self.built

    def _seconds(self, work: Callable[[], object]) -> float:
        watch = Stopwatch(self._built().device)
        watch.start()
        work()
        watch.stop()
        return watch.seconds

    def _wake(self) -> None:
        """After another's turn: memory of an accelerator was given back, and is asked for again untimed."""
        if self._built().device.type != "cpu":
            self._built().step()

    def _rest(self) -> None:
        """Leave the accelerator's memory to whoever is next."""
        if self._built().device.type != "cpu":
            torch.accelerator.memory.empty_cache()
