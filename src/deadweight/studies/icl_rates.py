"""What the records of the icl study say: alignments, override and losses, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deadweight.lab import Estimate, Record, accuracy_loss, bootstrap_mean, wilson
from deadweight.prompting.alignment import (
    INVALID,
    agreement,
    coherence,
    excess_override,
    joint,
    override,
    quadrants,
)
from deadweight.prompting.classify import NOISE
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.studies.icl_cells import STUDY

Classes = NDArray[np.int64]
Indicators = NDArray[np.float64]


@dataclass(frozen=True)
class Sitting:
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
    def of(cls, record: Record, decoding: str | None = None) -> Sitting:
        """The answers of the record's own decoding, or of another reading of the same likelihoods, without margins."""
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
                (frame["condition"], frame["k"]): np.asarray(
                    frame["by_decoding"][decoding] if decoding else frame["predicted"], dtype=np.int64
                )
                for frame in found["frames"]
            },
            margins={
                (frame["condition"], frame["k"]): np.asarray(frame["margin"], dtype=np.float64)
                for frame in found["frames"]
                if "margin" in frame and not decoding
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


Indicator = Callable[[Sitting], Indicators]


def by_task(records: Iterable[Record], decoding: str | None = None) -> dict[str, list[Sitting]]:
    """The sittings of each task in the study's own dtype, in the order of the records.

    `decoding` reads the labels off the recorded likelihoods in another way than the study did.

    Where several models were asked, each task is told a model: ``topic, hf:my_model``.
    """
    own = [record for record in records if record.cell.study == STUDY]
    models = dict.fromkeys(record.cell.params.get("language") for record in own)
    first = own[0].cell.params.get("dtype") if own else None
    found: dict[str, list[Sitting]] = {}
    for record in own:
        if record.cell.params.get("dtype") == first:
            sitting = Sitting.of(record, decoding)
            name = sitting.task if len(models) < 2 else f"{sitting.task}, {record.cell.params['language']}"
            found.setdefault(name, []).append(sitting)
    return found


def correct(frame: tuple[str, int]) -> Indicator:
    """Indicator of right answers in a frame."""
    return lambda sitting: agreement(sitting.answers[frame], sitting.gold)


def loss(before: tuple[str, int], after: tuple[str, int]) -> Indicator:
    """Per item: right before minus right after."""
    return lambda sitting: correct(before)(sitting) - correct(after)(sitting)


def overridden(frame: tuple[str, int]) -> Indicator:
    """Among items whose prior is right, those answered φ(y*) in `frame`; NaN elsewhere, or without a prior."""

    def indicate(sitting: Sitting) -> Indicators:
        if sitting.prior is None:
            return np.full(len(sitting.gold), np.nan)
        return override(sitting.prior, sitting.answers[frame], sitting.gold, sitting.phi)

    return indicate


def excess(inverted: tuple[str, int], control: tuple[str, int]) -> Indicator:
    """Per item: φ(y*) answered under inverted demonstrations minus the same under the control."""
    return lambda sitting: excess_override(
        sitting.answers[inverted], sitting.answers[control], sitting.gold, sitting.phi
    )


def item_means(sittings: Sequence[Sitting], indicator: Indicator) -> pd.DataFrame:
    """Columns item, seed, value: one row an item and seed for which the indicator says something."""
    rows = [
        pd.DataFrame({"item": sitting.items, "seed": sitting.seed, "value": indicator(sitting)}) for sitting in sittings
    ]
    return pd.concat(rows, ignore_index=True).dropna()


def rate(sittings: Sequence[Sitting], indicator: Indicator) -> Estimate | None:
    """A share with Wilson's interval; None where no item counts.

    n counts items: an item asked with several sets of demonstrations is one item with its mean, because its answers
    are not independent.
    """
    values = item_means(sittings, indicator)
    if values.empty:
        return None
    means = values.groupby("item")["value"].mean()
    interval = wilson(round(float(means.sum())), len(means))
    value = float(means.mean())
    return Estimate(value, min(interval.low, value), max(interval.high, value), len(means))


def difference(sittings: Sequence[Sitting], indicator: Indicator, margin: float = 0.0) -> Estimate:
    """The mean of a paired difference of values between −1 and 1, with the widest of the intervals that apply (ours).

    A bootstrap over items; Agresti and Min's interval, because where one item of twelve changes no resample shows any
    item change the other way, and the bootstrap ends exactly at 0; and, with several sets of demonstrations, a
    bootstrap over sets, which may differ by more than items explain.
    """
    values = item_means(sittings, indicator)
    if values.empty:  # no item has a valid answer on both sides
        return Estimate(float("nan"), -1.0, 1.0, 0, 1.0)
    items = values.groupby("item")["value"].mean().to_numpy()
    estimates = [bootstrap_mean(items, margin), accuracy_loss(items, np.zeros_like(items), margin)]
    if values["seed"].nunique() > 1:
        estimates.append(bootstrap_mean(values["value"].to_numpy(), margin, clusters=values["seed"].tolist()))
    return Estimate(
        estimates[0].value,
        min(one.low for one in estimates),
        max(one.high for one in estimates),
        estimates[0].n,
        max(one.p or 0.0 for one in estimates),
    )


def alignment_table(tasks: dict[str, list[Sitting]]) -> pd.DataFrame:
    """One row a task, condition and k: the paper's alignments, the joint rate, override and coherence."""
    rows = []
    for task, sittings in tasks.items():
        for frame in sittings[0].answers:
            rows.append({"task": task, "condition": frame[0], "k": frame[1], **_rates(sittings, frame)})
    return pd.DataFrame(rows)


def _rates(sittings: Sequence[Sitting], frame: tuple[str, int]) -> dict[str, float | int]:
    condition = frame[0]
    accuracy = rate(sittings, correct(frame))
    with_prior = [s for s in sittings if s.prior is not None]
    kappas = [coherence(s.answers[frame], s.phi[s.gold], len(s.labels)) for s in sittings]

    def share(indicator: Indicator, over: Sequence[Sitting] = sittings) -> float:
        found = rate(over, indicator) if over else None
        return float("nan") if found is None else found.value

    nan = float("nan")
    return {
        "items": accuracy.n if accuracy else 0,
        "truth alignment": accuracy.value if accuracy else nan,
        "low": accuracy.low if accuracy else nan,
        "high": accuracy.high if accuracy else nan,
        "prior alignment": share(lambda s: agreement(s.answers[frame], _known(s.prior)), with_prior),
        "prompt alignment": share(lambda s: agreement(s.answers[frame], s.asked_for(condition))),
        "joint rate": share(lambda s: joint(s.answers[frame], s.gold, s.phi)) if condition == "inverted" else nan,
        "override rate": share(overridden(frame), with_prior),
        "κ with φ(y*)": float(np.mean(kappas)),
        "invalid": float(np.mean([np.mean(s.answers[frame] == INVALID) for s in sittings])),
        "within noise": within_noise(sittings, frame),
    }


def within_noise(sittings: Sequence[Sitting], frame: tuple[str, int]) -> float:
    """The share of decisions whose lead is smaller than the arithmetic's noise; NaN where no likelihood decided."""
    shares = [np.mean(s.margins[frame] < NOISE.get(s.dtype, 0.0)) for s in sittings if frame in s.margins]
    return float(np.mean(shares)) if shares else float("nan")


def _known(prior: Classes | None) -> Classes:
    assert prior is not None
    return prior


def quadrant_table(tasks: dict[str, list[Sitting]], k: int) -> pd.DataFrame:
    """One row a condition and quadrant of prior × answer: the share of items, over all tasks."""
    counts: dict[str, dict[str, int]] = {}
    for sitting in (sitting for sittings in tasks.values() for sitting in sittings):
        for (condition, shown), predicted in sitting.answers.items():
            if shown == k and sitting.prior is not None:
                total = counts.setdefault(condition, {})
                for name, count in quadrants(sitting.prior, predicted, sitting.gold).items():
                    total[name] = total.get(name, 0) + count
    rows = [
        {"demonstrations": condition, "side": name, "share": count / sum(total.values())}
        for condition, total in counts.items()
        if any(total.values())  # else no reply was a label
        for name, count in total.items()
    ]
    return pd.DataFrame(rows)
