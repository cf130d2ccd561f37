"""Blocks dropped without training: those that change their input least, and those whose loss, refitted, is least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.errors import SurgeryError
from deadweight.evaluation import from_bits, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import save
from deadweight.probes import DepthProfile
from deadweight.report import Figure
from deadweight.statistics import accuracy_loss
from deadweight.studies.depth.calibration import (
    CALIBRATION,
    SELECTION,
    divergence,
    drawn,
    logits_on,
    right_answers,
)
from deadweight.studies.depth.cells import cell_about, measure, of_model
from deadweight.studies.depth.profile import Profile
from deadweight.studies.depth.shards import FILE
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name, saved_source
from deadweight.studies.frame.page import interval_plots
from deadweight.studies.frame.quantity import ACCURACY
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.surgery import drop_blocks

VERSION = 2  # calibration and selection images are drawn over all classes
BY = {"measured": "by measured loss", "influence": "by influence"}
HOW = {"plain": "as it is", "refit": "the rest refitted"}


class Shortened(TypedDict):
    """The result. choices: by ``influence`` and ``measured``, a step for each number of blocks: ``{blocks, plain,
    refit}``, blocks counted from 1, bits of right answers."""

    measure: str | None
    n: int
    works: bool
    intact: str
    choices: dict[str, list[Json]]


class Shorten(Experiment):
    """A quarter of the blocks, one after another, chosen and refitted on training images, judged on held-out ones."""

    kind: ClassVar[str] = "shorten"
    bytes_per_cell: ClassVar[int] = 1_040_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        if subject is None or "shorten" not in study.experiments:
            return []
        profile = Profile().cells(study, subject)[-1]
        seed: dict[str, Json] = {"seed": study.seed}
        return [cell_about(study, self.kind, subject, needs=[profile.key], effort=3.0, more=seed, version=VERSION)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        found = DepthProfile.load(bench.folder_of(cell.needs[-1]) / FILE)
        return shorten(model, data, study.batch_size, bench, list(found.table()["influence"][1:-1]))

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            _effect(record, choice, how, step, shown=step is steps[-1] and how == "refit", margin=margin)
            for record in self.own(records)
            for choice, steps in record.result["choices"].items()
            for step in steps
            for how in HOW
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        own = [record for record in self.own(records) if record.result["choices"]]
        return [
            of_model(figure, record, len(own))
            for record in own
            for figure in _figures(record, [p.effect for p in settled if record.key in p.effect.evidence], margin)
        ]


def shorten(model: nn.Module, data: ImageData, size: int, bench: Workbench, influence: Sequence[float]) -> Outcome:
    """Drop blocks chosen by influence, and chosen by what is lost once the rest is refitted; both ways round.

    The measured choice takes one block after another: of all that are left the one whose loss, refitted, changes the
    intact model's answers least (mean Kullback-Leibler divergence on training images; no label is used).
    """
    images, depth = data.validation, anatomy(model).depth
    calibration, selection = drawn(data.train, (CALIBRATION, SELECTION), int(bench.cell.params["seed"]))
    inputs = [pictures for pictures, _ in calibration]
    intact = reference_predictions(model, images, data.classes, size)
    wanted = max(1, depth // 4)
    asked = [logits_on(model, pictures) for pictures, _ in selection]

    def changed(blocks: Sequence[int]) -> float:
        shorter = drop_blocks(model, blocks, refit="stream", batches=inputs)
        return divergence(asked, [logits_on(shorter, pictures) for pictures, _ in selection])

    try:
        measured: list[int] = []
        for number in range(wanted):
            losses = {}
            for block in range(depth):
                bench.note(f"which block to drop as number {number + 1}", (number + block / depth) / (wanted + 1))
                if block not in measured:
                    losses[block] = changed([*measured, block])
            measured.append(min(losses, key=lambda block: (losses[block], block)))
        by_influence = [int(block) for block in np.argsort(influence, kind="stable")[:wanted]]
        choices: dict[str, list[Json]] = {}
        for name, blocks in (("influence", by_influence), ("measured", measured)):
            choices[name] = []
            for count in range(1, wanted + 1):
                cut = sorted(blocks[:count])
                plain = drop_blocks(model, cut)
                refitted = drop_blocks(model, cut, refit="stream", batches=inputs)
                choices[name].append({
                    "blocks": [block + 1 for block in cut],
                    "plain": right_answers(plain, images, size, intact.truth),
                    "refit": right_answers(refitted, images, size, intact.truth),
                })  # fmt: skip
    except SurgeryError as problem:
        return Outcome({"measure": None, "n": len(images), "choices": {}}, context={"notes": [problem.given]})
    bench.folder.mkdir(parents=True, exist_ok=True)
    save(refitted, bench.folder / "shorter")
    result: Shortened = {"measure": intact.measure, "n": len(images), "works": intact.works,
                         "intact": to_bits(intact.right), "choices": choices}  # fmt: skip
    return Outcome(dict(result), context={"notes": list(intact.notes)})


def _effect(record: Record, choice: str, how: str, step: Json, *, shown: bool, margin: float) -> Effect:
    intact, quantity = from_bits(record.result["intact"]), measure(record)
    blocks = ", ".join(str(block) for block in step["blocks"])
    indices = [block - 1 for block in step["blocks"]]
    many = "block" if len(indices) == 1 else "blocks"
    remedy = Remedy(
        saved_source(record.cell), "drop_blocks", {"indices": indices},
        "Drop these blocks; with refit='stream' and batches of your images the rest makes up for them.",
    )  # fmt: skip
    return Effect(
        f"shorten-{choice}" if shown else f"shorten-{choice}-{how}-{len(indices)}", model_name(record.cell),
        f"Dropping {many} {blocks}, chosen {BY[choice]}, {HOW[how]},", quantity,
        accuracy_loss(intact, from_bits(step[how]), margin, unit="images"),
        sum(intact) / len(intact) if quantity == ACCURACY else None, evidence=(record.key,), shown=shown,
        remedy=remedy if shown and choice == "measured" else None,
    )  # fmt: skip


def _figures(record: Record, effects: Sequence[Effect], margin: float) -> list[Figure]:
    caption = (
        "Blocks dropped without training: those that turn their input least, or those whose loss, measured once the "
        "rest is refitted in closed form, is least. Chosen and refitted on unlabelled training images, judged on "
        f"{record.result['n']} held-out ones."
    )
    names = {effect.id: effect.removed.removeprefix("Dropping ").rstrip(",") for effect in effects}
    title = "Which blocks to drop: by influence or by what is lost"
    return interval_plots("depth-shorten", effects, margin, title=title, caption=caption, names=names)


__all__ = ["Shorten", "Shortened", "shorten"]
