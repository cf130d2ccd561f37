"""One task asked in every frame with one set of demonstrations; what is measured of each item (2511.21038)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deadweight.lab import Record
from deadweight.prompting.alignment import agreement, excess_override, override
from deadweight.prompting.classify import NOISE
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.studies.icl.cells import STUDY

Classes = NDArray[np.int64]
Indicators = NDArray[np.float64]
Frame = tuple[str, int]  # condition and number of demonstrations


@dataclass(frozen=True)
class IclRun:
    """One record: the test items of one task asked in every frame of one set of demonstrations.

    gold: y* [items]; phi: φ by class number; answers: (condition, k) -> predicted class [items], -1 where a reply was
    no label; margins: (condition, k) -> lead of the answer over the next in nats [items], where likelihoods decided.
    """

    task: str
    seed: int
    key: str
    labels: tuple[str, ...]
    items: tuple[str, ...]
    gold: Classes
    phi: Classes
    answers: dict[tuple[str, int], Classes]
    margins: dict[tuple[str, int], Indicators] = field(default_factory=dict)
    dtype: str = "float32"

    @classmethod
    def of(cls, record: Record) -> IclRun:
        """The answers as the record's own decoding read them; `read_as` gives the record of another reading."""
        found = record.result
        return cls(
            task=found["task"],
            seed=record.cell.params["seed"],
            key=record.key,
            labels=tuple(found["labels"]),
            items=tuple(found["items"]),
            gold=np.asarray(found["gold"], dtype=np.int64),
            phi=np.asarray(found["phi"], dtype=np.int64),
            answers={
                (frame["condition"], frame["k"]): np.asarray(frame["predicted"], dtype=np.int64)
                for frame in found["frames"]
            },
            margins={
                (frame["condition"], frame["k"]): np.asarray(frame["margin"], dtype=np.float64)
                for frame in found["frames"]
                if "margin" in frame
            },
            dtype=record.cell.params.get("dtype", "float32"),
        )

    @property
    def prior(self) -> Classes | None:
        """f₀: the answers without demonstrations."""
        return self.answers.get((ZERO_SHOT, 0))

    def asked_for(self, condition: str) -> Classes:
        """y_prompt: φ(y*) under inverted demonstrations, also where a share is, and y* under all others."""
        return self.phi[self.gold] if condition.startswith("inverted") else self.gold


Indicator = Callable[[IclRun], Indicators]


@dataclass(frozen=True)
class AskedTask:
    """All runs of one task and model: the same items with several sets of demonstrations.

    model: the source of the language model. source: of the task, as the study was given it.
    """

    name: str
    model: str
    source: str
    runs: tuple[IclRun, ...]

    @property
    def frames(self) -> list[Frame]:
        return list(self.runs[0].answers)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.runs[0].labels

    @property
    def evidence(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)

    @property
    def slug(self) -> str:
        """The task's name as part of an id."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name).split()).lower()

    def largest(self, condition: str | None = None) -> int:
        """The largest number of demonstrations, of one condition or of any."""
        return max((k for name, k in self.frames if condition in (None, name)), default=0)

    def matrix(self, indicator: Indicator) -> Indicators:
        """(items, sets) of an indicator; NaN where an item does not count."""
        places: dict[str, int] = {}
        for run in self.runs:
            for item in run.items:
                places.setdefault(item, len(places))
        values = np.full((len(places), len(self.runs)), np.nan)
        for at, run in enumerate(self.runs):
            values[[places[item] for item in run.items], at] = indicator(run)
        return values


def read_as(record: Record, decoding: str) -> Record:
    """The record as if its answers had been read off the same likelihoods in another way: no model is asked.

    decoding: ``sum``, ``mean`` or ``calibrated``. Leads over the next answer belong to the old reading and go.
    """
    frames = [{**frame, "predicted": frame["by_decoding"][decoding]} for frame in record.result["frames"]]
    for frame in frames:
        frame.pop("margin", None)
    return replace(record, result={**record.result, "frames": frames})


def asked_tasks(records: Iterable[Record]) -> list[AskedTask]:
    """The runs of each task and model in the study's own dtype, in the order of the records."""
    own = [record for record in records if record.cell.study == STUDY]
    first = own[0].cell.params.get("dtype") if own else None
    found: dict[tuple[str, str], list[Record]] = {}
    for record in own:
        if record.cell.params.get("dtype") == first:
            place = (str(record.result["task"]), str(record.cell.params.get("language")))
            found.setdefault(place, []).append(record)
    return [
        AskedTask(name, model, str(rows[0].cell.params["task"]), tuple(IclRun.of(record) for record in rows))
        for (name, model), rows in found.items()
    ]


def called(tasks: Sequence[AskedTask]) -> dict[str, AskedTask]:
    """Tasks by what tables call them: with the model's name where there are several models."""
    several = len({task.model for task in tasks}) > 1
    return {f"{task.name}, {task.model}" if several else task.name: task for task in tasks}


def correct(frame: Frame) -> Indicator:
    """Indicator of right answers in a frame."""
    return lambda run: agreement(run.answers[frame], run.gold)


def loss(before: Frame, after: Frame) -> Indicator:
    """Per item: right before minus right after."""
    return lambda run: correct(before)(run) - correct(after)(run)


def overridden(frame: Frame) -> Indicator:
    """Among items whose prior is right, those answered φ(y*) in `frame`; NaN elsewhere, or without a prior."""

    def indicate(run: IclRun) -> Indicators:
        if run.prior is None:
            return np.full(len(run.gold), np.nan)
        return override(run.prior, run.answers[frame], run.gold, run.phi)

    return indicate


def excess(inverted: Frame, control: Frame) -> Indicator:
    """Per item: φ(y*) answered under inverted demonstrations minus the same under the control."""
    return lambda run: excess_override(run.answers[inverted], run.answers[control], run.gold, run.phi)


def followed(frame: Frame) -> Indicator:
    """Prompt alignment with φ(y*) over all items, whatever the prior was."""
    return lambda run: agreement(run.answers[frame], run.phi[run.gold])


def within_noise(task: AskedTask, frame: Frame) -> float:
    """The share of decisions whose lead is smaller than the arithmetic's noise; NaN where no likelihood decided."""
    shares = [np.mean(run.margins[frame] < NOISE.get(run.dtype, 0.0)) for run in task.runs if frame in run.margins]
    return float(np.mean(shares)) if shares else float("nan")


__all__ = [
    "AskedTask",
    "Frame",
    "IclRun",
    "Indicator",
    "asked_tasks",
    "called",
    "correct",
    "excess",
    "followed",
    "loss",
    "overridden",
    "read_as",
    "within_noise",
]
