"""The model left after an earlier block, with a readout of its own: chosen and fitted on training images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
import torch
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.errors import DeadweightError, InputError
from deadweight.evaluation import batches, from_bits, predictions, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import load, save
from deadweight.meters.interleaved import interleaved
from deadweight.probes import profile
from deadweight.report import Figure, Table
from deadweight.report.wording import quantity as written
from deadweight.statistics import Estimate, accuracy_loss, ratio
from deadweight.studies.depth.calibration import FITTING, drawn, right_answers
from deadweight.studies.depth.cells import cell_about
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name, saved_source
from deadweight.studies.frame.page import with_interval
from deadweight.studies.frame.quantity import ACCURACY, SPEED
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.surgery import early_exit

VERSION = 2  # the layer is chosen on training images, and judged on the held-out ones
CHOOSING = 2048  # training images the layer is chosen on
ROUNDS = 7  # of timing


class Left(TypedDict):
    """The result. layer: blocks that are kept, of `depth`; useful: whether that layer was shown to read as well as
    the last; whole, exit: bits of right answers; same_when_loaded: None where it could not be loaded again."""

    layer: int
    depth: int
    useful: bool
    n: int
    works: bool
    whole: str
    exit: str
    same_when_loaded: bool | None


class Exit(Experiment):
    """Leaves the model after its useful depth, and says what that costs and what it gains."""

    kind: ClassVar[str] = "exit"
    bytes_per_cell: ClassVar[int] = 1_270_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        if subject is None or "exit" not in study.experiments:
            return []
        more: dict[str, Json] = {"margin": study.margin, "seed": study.seed}
        return [cell_about(study, self.kind, subject, effort=0.8, exclusive=True, more=more, version=VERSION)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        return leave_early(model, data, study.batch_size, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [effect for record in self.own(records) for effect in _effects(record, margin)]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        own = [pair.effect.statement for pair in settled if pair.effect.shown]
        return own if len(own) == 1 else []

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        return []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        rows = [_row(record, [p.effect for p in settled if record.key in p.effect.evidence])
                for record in self.own(records)]  # fmt: skip
        caption = (
            "The model is left after the block named and read by a linear readout fitted there (ridge, on training "
            "images). The block is chosen on training images, the loss is that of held-out ones. Speed: a batch "
            "through either, in turns, the median ratio."
        )
        return [Table("Leaving early", pd.DataFrame(rows), caption)] if rows else []


def leave_early(model: nn.Module, data: ImageData, size: int, bench: Workbench) -> Outcome:
    """An exit at the useful depth: its accuracy against the whole model's, saved, loaded again and timed.

    Where no earlier layer was shown to read as well as the last, the exit tried is one block before the end; where
    even the first block's input was, it is after the first block.
    """
    images, depth = data.validation, anatomy(model).depth
    margin, seed = float(bench.cell.params["margin"]), int(bench.cell.params["seed"])
    choosing, fitted = drawn(data.train, (CHOOSING, FITTING), seed, size)
    if len(data.train) < CHOOSING + FITTING:  # too few for both: chosen on one half, fitted on the other
        half = len(data.train) // 2
        choosing, fitted = drawn(data.train, (half, len(data.train) - half), seed, size)
    intact = reference_predictions(model, images, data.classes, size)
    classes, notes = len(data.classes), list(intact.notes)
    whole, right = model, to_bits(intact.right)
    truth = torch.tensor([label for _, labels in batches(images, size) for label in labels])
    if intact.measure != "accuracy":
        whole = early_exit(model, depth, classes=classes, batches=fitted)
        right = right_answers(whole, images, size, truth)
        notes.append("exit: held against the same kind of readout after the last block")
    found = _useful_depth(model, choosing, margin)
    if found == 0:
        notes.append("exit: the classes can be read off as well before the first block; the exit tried is after it")
    elif found == depth:
        notes.append("exit: no layer before the last was shown to read as well as it at this margin")
    layer = min(max(1, found), max(1, depth - 1))
    bench.note(f"an exit after block {layer} of {depth}", 0.3)
    short = early_exit(model, layer, classes=classes, batches=fitted)
    answers, _ = predictions(short, images, size)
    bench.folder.mkdir(parents=True, exist_ok=True)
    save(short, bench.folder / "exit")
    again: bool | None = None
    try:
        fresh = load(f"file:{bench.folder / 'exit'}").to(next(short.parameters()))
    except DeadweightError as problem:
        notes.append(f"exit: not loaded again: {problem.given}")
    else:
        again = bool(torch.equal(predictions(fresh, images, size)[0], answers))
    weight = next(whole.parameters())
    pictures = next(batches(images, size))[0].to(weight.device, weight.dtype)
    with torch.inference_mode():
        seconds = interleaved(
            {"whole": lambda: whole(pictures), "exit": lambda: short(pictures)}, rounds=ROUNDS, device=weight.device
        )
    ratios = [one / two for one, two in zip(seconds["whole"], seconds["exit"], strict=True)]
    result: Left = {
        "layer": layer, "depth": depth, "useful": found < depth, "n": len(images), "works": intact.works,
        "whole": right, "exit": to_bits(answers.argmax(1) == truth), "same_when_loaded": again,
    }  # fmt: skip
    speed: dict[str, Json] = {
        "whole_seconds": statistics.median(seconds["whole"]), "exit_seconds": statistics.median(seconds["exit"]),
        "speedup": statistics.median(ratios), "slowest": min(ratios), "fastest": max(ratios), "rounds": seconds,
        "images": len(pictures),
    }  # fmt: skip
    return Outcome(dict(result), measured={"speed": speed}, context={"notes": notes})


def _useful_depth(model: nn.Module, choosing: Sequence[Any], margin: float) -> int:
    try:
        return profile(model, choosing, probes=["ncm_accuracy"]).useful_depth(margin)
    except InputError:  # too few labelled images to judge one by others
        return anatomy(model).depth


def _effects(record: Record, margin: float) -> list[Effect]:
    result, name = record.result, model_name(record.cell)
    whole, left = from_bits(result["whole"]), from_bits(result["exit"])
    loss, speed = accuracy_loss(whole, left, margin, unit="images"), _speed(record.measured["speed"])
    after = f"Left after block {result['layer']} of {result['depth']} with a readout of its own, the model"
    change = written(float(f"{abs(loss.value):.3g}"), "accuracy")
    statement = f"{after} is {speed.value:.2f} times as fast and " + (
        f"loses {change} of accuracy." if loss.value > 0 else f"no less accurate ({change} more)."
    )
    remedy = Remedy(
        saved_source(record.cell), "", {},
        f"`dw.early_exit(model, {result['layer']}, classes=…, batches=…)` makes it; the run's folder holds one.",
    )  # fmt: skip
    return [
        Effect("exit", name, "", ACCURACY, loss, evidence=(record.key,), statement=statement, remedy=remedy),
        Effect("exit-speed", name, "", SPEED, speed, evidence=(record.key,), shown=False,
               statement=f"{after} is {speed.value:.2f} times as fast."),
    ]  # fmt: skip


def _speed(speed: Json) -> Estimate:
    if "rounds" in speed:
        return ratio(speed["rounds"]["whole"], speed["rounds"]["exit"])
    label = f"range of {ROUNDS} rounds"  # an earlier version kept no more
    return Estimate(speed["speedup"], speed["slowest"], speed["fastest"], ROUNDS, None, 0.0, label)


def _row(record: Record, effects: Sequence[Effect]) -> dict[str, object]:
    result = record.result
    loss, speed = (next(e for e in effects if e.id == name) for name in ("exit", "exit-speed"))
    return {
        "model": model_name(record.cell), "exit after": f"block {result['layer']} of {result['depth']}",
        "as good as the last": "yes" if result["useful"] else "no: none was shown to be as good",
        "accuracy, whole": float(np.mean(from_bits(result["whole"]))),
        "accuracy, exit": float(np.mean(from_bits(result["exit"]))),
        "loss": with_interval(loss.estimate, ACCURACY), "times as fast": with_interval(speed.estimate, SPEED),
        "the same when loaded": {True: "yes", False: "no"}.get(result["same_when_loaded"], "not loaded"),
    }  # fmt: skip


__all__ = ["Exit", "Left", "leave_early"]
