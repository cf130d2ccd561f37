"""deadweight inside Hugging Face: ``register()`` the mechanisms, record energy with a Trainer or with accelerate.

>>> import deadweight.transformers
>>> "deadweight_linear" in deadweight.transformers.register()
True

Then ``AutoModelForCausalLM.from_pretrained(…, attn_implementation="deadweight_linear")``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from deadweight.attention.huggingface import register
from deadweight.errors import InputError
from deadweight.meters import EnergyDevice, EnergyMeter, Reading, energy_devices
from deadweight.meters.clock import Stopwatch, accelerator

__all__ = ["EnergyCallback", "StepEnergy", "register"]


class StepEnergy:
    """Joules and seconds of each training step, from the machine's counters; ``missing`` where there are none.

    Parameters
    ----------
    devices:
        The counters; by default all of this machine. One process per machine should hold them: counters run for the
        machine, so two that add theirs up would charge every joule twice.
    every:
        Steps a reading, at least. Steps too short for the slowest counter are read together with those after them,
        so that a reading may cover more; its ``steps`` says how many. Only the last may be too short, and is missing.
    path:
        A file that gets one JSON object a reading, at once.
    """

    def __init__(
        self, devices: Sequence[EnergyDevice] | None = None, *, every: int = 1, path: str | Path | None = None
    ) -> None:
        if every < 1:
            raise InputError(f"every {every}", expected="every ≥ 1", cure="1 reads after each step")
        self.devices = list(energy_devices() if devices is None else devices)
        self.every, self.path = every, None if path is None else Path(path)
        self.history: list[dict[str, Any]] = []
        self._meter: EnergyMeter | None = None
        self._done = self._covered = 0
        self._shortest = max((d.shortest for d in self.devices if d.provenance != "missing"), default=0.0)

    def begin(self) -> None:
        """A step begins; what lies between a reading and the next `begin` (evaluation, saving) is charged to none."""
        if self._meter is None:
            self._began = time.perf_counter()
            self._watch = Stopwatch(accelerator())
            self._meter = EnergyMeter(self.devices)
            self._meter.start()
            self._watch.start()

    def end(self, step: int) -> dict[str, Any] | None:
        """A step has ended: its record where one is due, else None."""
        self._done += 1
        self._covered += 1
        if self._meter is None or self._done % self.every or time.perf_counter() - self._began < self._shortest:
            return None
        return self._read(step)

    def close(self, step: int) -> dict[str, Any] | None:
        """Read what is still open."""
        return self._read(step) if self._meter is not None else None

    def _read(self, step: int) -> dict[str, Any]:
        assert self._meter is not None
        self._watch.stop()
        self._meter.stop()
        row = {
            "step": step,
            "steps": self._covered,
            "seconds": self._watch.seconds,
            "energy": self._meter.total().as_json(),
            "parts": {name: reading.as_json() for name, reading in self._meter.readings().items()},
        }
        self._meter, self._covered = None, 0
        self.history.append(row)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return row

    def total(self) -> Reading:
        """Joules of all readings so far; steps whose reading is missing are not in it, and the reason says so."""
        rows = [(row["steps"], Reading(**row["energy"])) for row in self.history]
        if not rows:
            return Reading.missing("J", "no step was recorded", "train at least one step")
        read = [(steps, reading) for steps, reading in rows if reading.value is not None]
        lost = next((reading for _, reading in rows if reading.value is None), None)
        if not read:
            assert lost is not None
            return lost
        order = ("modelled", "integrated", "measured")
        weakest = min((reading for _, reading in read), key=lambda reading: order.index(reading.provenance))
        notes = [weakest.reason] if weakest.reason else []
        if lost is not None:
            covered, all_steps = (sum(steps for steps, _ in some) for some in (read, rows))
            notes.append(f"covers {covered} of {all_steps} steps; not included: {lost.reason}")
        joules = sum(reading.value for _, reading in read if reading.value is not None)
        return Reading(joules, "J", weakest.provenance, "; ".join(notes), weakest.cure)

    @contextmanager
    def step(self, accelerator: Any = None) -> Iterator[None]:
        """The hook for a training loop with accelerate: ``with energy.step(accelerator): …``.

        With an ``Accelerator`` only each machine's first process reads, and the reading goes to its trackers as
        ``energy/joules`` and ``energy/seconds``; a missing reading logs no joules.
        """
        mine = accelerator is None or accelerator.is_local_main_process
        if mine:
            self.begin()
        yield
        row = self.end(self._done + 1) if mine else None
        if row is not None and accelerator is not None:
            accelerator.log(_logged(row, "energy/"), step=row["step"])


class EnergyCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped to us
    """Records the energy of training with the Hugging Face Trainer: ``Trainer(…, callbacks=[EnergyCallback()])``.

    ``callback.energy.history`` holds a row per step, ``callback.energy.total()`` the sum; the Trainer's own log gets
    ``energy_joules`` with the last reading, and ``energy_missing`` with the reason where there is none: never 0.
    Options are those of :class:`StepEnergy`.
    """

    def __init__(
        self, devices: Sequence[EnergyDevice] | None = None, *, every: int = 1, path: str | Path | None = None
    ) -> None:
        self.energy = StepEnergy(devices, every=every, path=path)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_local_process_zero:
            self.energy.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.energy.end(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not self.energy.history:
            return
        row = _logged(self.energy.history[-1], "energy_")
        for held in (logs, state.log_history[-1] if state.log_history else None):
            if held is not None:
                held.update(row)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.energy.close(state.global_step)


def _logged(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    energy = row["energy"]
    if energy["value"] is None:
        return {f"{prefix}seconds": row["seconds"], f"{prefix}missing": energy["reason"]}
    return {f"{prefix}seconds": row["seconds"], f"{prefix}joules": energy["value"]}
