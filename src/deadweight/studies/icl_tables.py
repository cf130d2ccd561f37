"""Tables of the icl study beyond the paper's: where gains come from and end, what decoding and dtype change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deadweight.lab import Record, Records
from deadweight.prompting import Task
from deadweight.prompting.alignment import quadrants
from deadweight.prompting.classify import LIKELIHOODS
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.studies.icl_cells import STUDY
from deadweight.studies.icl_rates import Sitting, by_task, difference, loss


def decomposition_table(tasks: dict[str, list[Sitting]]) -> pd.DataFrame:
    """Accuracy and its gain over the prior, split by whether the right answer was the prior's own (ours).

    accuracy = kept (prior-consistent) + repaired (prior-breaking); gain = repaired − broken.
    """
    rows = []
    for task, sittings in tasks.items():
        for frame in sittings[0].answers:
            parts = [quadrants(s.prior, s.answers[frame], s.gold) for s in sittings if s.prior is not None]
            counts = {name: sum(part[name] for part in parts) for name in parts[0]} if parts else {}
            total = sum(counts.values())
            if frame[0] == ZERO_SHOT or not total:
                continue
            kept, broken, repaired, _ = (count / total for count in counts.values())
            right = kept + repaired
            rows.append(
                {
                    "task": task, "condition": frame[0], "k": frame[1], "prior accuracy": kept + broken,
                    "accuracy": right, "kept": kept, "repaired": repaired, "broken": broken,
                    "gain": repaired - broken, "right answers that are the prior's": kept / right if right else np.nan,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def sweep_table(tasks: dict[str, list[Sitting]], margin: float = 0.01) -> pd.DataFrame:
    """For every number of natural demonstrations, what the most of them gain over it, paired by item (ours).

    "dead past here" says ``yes`` when no larger number gains more than the margin with its whole interval, ``no`` when
    one surely does, else ``undecided``.
    """
    rows = []
    for task, sittings in tasks.items():
        frames = [(ZERO_SHOT, 0), *sorted((f for f in sittings[0].answers if f[0] == "natural"), key=lambda f: f[1])]
        frames = [frame for frame in frames if frame in sittings[0].answers]
        for at, frame in enumerate(frames[:-1]):
            gains = [difference(sittings, loss(larger, frame), margin) for larger in frames[at + 1 :]]
            best = max(gains, key=lambda gain: gain.value)
            said = "undecided"
            if all(gain.high < margin for gain in gains):
                said = "yes"
            elif any(gain.low > margin for gain in gains):
                said = "no"
            rows.append(
                {"task": task, "k": frame[1], "most gained by a larger k": best.value, "from": best.low,
                 "to": best.high, "dead past here": said}
            )  # fmt: skip
    return pd.DataFrame(rows)


def decoding_table(records: Records) -> pd.DataFrame:
    """Accuracy by how the label is read off the same log-probabilities: mean over tasks and sets; one row a frame."""
    rows = []
    for record in _own(records):
        gold = np.asarray(record.result["gold"])
        for frame in record.result["frames"]:
            for name in LIKELIHOODS:
                if name in frame.get("by_decoding", {}):
                    right = float(np.mean(np.asarray(frame["by_decoding"][name]) == gold))
                    rows.append({"condition": frame["condition"], "k": frame["k"], "decoding": name, "accuracy": right})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).groupby(["condition", "k", "decoding"], sort=False)["accuracy"].mean().unstack()
    return table[list(LIKELIHOODS)].reset_index().rename_axis(columns=None)


def item_table(records: Records, task: Task | None = None) -> pd.DataFrame:
    """One row an item, set of demonstrations and frame, for reading errors one by one.

    Columns: task, item, seed, condition, k, label, prior, answer (labels; None for an invalid reply, or where there is
    no frame without demonstrations), lead (nats; NaN for generated answers), and with `task` also the question.
    """
    questions = {item.id: task.ask(item) for item in task.items} if task else {}
    rows = []
    for sitting in (sitting for sittings in by_task(records).values() for sitting in sittings):
        names = [*sitting.labels, None]  # INVALID is -1
        for (condition, k), answers in sitting.answers.items():
            for at, item in enumerate(sitting.items):
                if task is None or item in questions:
                    rows.append({
                        "task": sitting.task, "item": item, "seed": sitting.seed, "condition": condition, "k": k,
                        "label": names[sitting.gold[at]], "answer": names[answers[at]],
                        "prior": None if sitting.prior is None else names[sitting.prior[at]],
                        "lead": sitting.margins[condition, k][at] if (condition, k) in sitting.margins else np.nan,
                        **({"question": questions[item]} if task else {}),
                    })  # fmt: skip
    return pd.DataFrame(rows)


def arithmetic_table(records: Records) -> pd.DataFrame:
    """The same questions in two dtypes: shifts of the log-probabilities and of the answers; one row a task."""
    own = [record for record in records if record.cell.study == STUDY]
    if len({record.cell.params.get("dtype") for record in own}) < 2:
        return pd.DataFrame()
    pairs: dict[tuple[object, ...], list[Record]] = {}
    for record in own:
        params = record.cell.params
        pairs.setdefault((params["language"], params["task"], params["seed"]), []).append(record)
    rows = []
    for one, other in (pair for pair in pairs.values() if len(pair) == 2):
        for left, right in zip(one.result["frames"], other.result["frames"], strict=True):
            if "log_probs" in left and "log_probs" in right:
                shift = np.abs(np.asarray(left["log_probs"]) - np.asarray(right["log_probs"]))
                moved = np.asarray(left["predicted"]) != np.asarray(right["predicted"])
                rows.append({"task": one.result["task"], "shift": shift.max(), "middle": np.median(shift),
                             "flips": moved.mean(), "overturned": _largest(left["margin"], moved),
                             "leads": left["margin"]})  # fmt: skip
    if not rows:
        return pd.DataFrame()
    grouped = pd.DataFrame(rows).groupby("task", sort=False)
    return pd.DataFrame(
        {
            "largest shift of a log-probability": grouped["shift"].max(),
            "median shift": grouped["middle"].median(),
            "answers that lead by less": grouped[["shift", "leads"]].apply(_within_shift),
            "answers that change": grouped["flips"].mean(),
            "largest lead that was overturned": grouped["overturned"].max(),
        }
    ).reset_index()


def _within_shift(frames: pd.DataFrame) -> float:
    """The share of answers whose lead is smaller than the largest shift of one log-probability."""
    leads = np.concatenate(frames["leads"].to_numpy())
    return float(np.mean(leads < frames["shift"].max()))


def _largest(margins: Sequence[float], moved: np.ndarray) -> float:
    leads = np.asarray(margins)[moved]
    return float(leads.max()) if len(leads) else 0.0


def _own(records: Records) -> list[Record]:
    own = [record for record in records if record.cell.study == STUDY]
    return [record for record in own if record.cell.params.get("dtype") == own[0].cell.params.get("dtype")]
