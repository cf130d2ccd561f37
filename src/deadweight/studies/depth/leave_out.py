"""The model's answers with each block left out in turn: what the verdict on a block rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.errors import SurgeryError
from deadweight.evaluation import from_bits, predictions, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.report import Figure
from deadweight.report.wording import quantity as written
from deadweight.statistics import accuracy_loss
from deadweight.studies.depth.cells import cell_about, judged, measure, of_model
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name, saved_source
from deadweight.studies.frame.page import interval_plots
from deadweight.studies.frame.quantity import ACCURACY
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.surgery import drop_blocks


class LeftOut(TypedDict):
    """The result. measure: ``accuracy`` or ``agreement``, None for a model without a head; works: whether the intact
    model beats the commonest class; intact: its right answers; blocks: ``{block, path, correct}``, counted from 1, bits
    of right answers without it, None for a block that cannot be removed."""

    measure: str | None
    n: int
    works: bool
    intact: str | None
    blocks: list[Json]


class LeaveOut(Experiment):
    """Each block out in turn, nothing retrained."""

    kind: ClassVar[str] = "skip"
    bytes_per_cell: ClassVar[int] = 4_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        return [] if subject is None else [cell_about(study, self.kind, subject)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        return leave_out(model, data, study.batch_size, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            effect
            for record in self.own(records)
            if record.result["measure"]
            for effect in block_effects(record, margin)
        ]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        own = self.own(records)
        sentences = [_lead(own[0], [pair.effect for pair in settled])] if len(own) == 1 and settled else []
        notes = [str(note) for record in own for note in record.context.get("notes", [])]
        return sentences + [f"{note[:1].upper()}{note[1:]}." for note in dict.fromkeys(notes)]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        own = [record for record in self.own(records) if record.result["measure"]]
        return [
            of_model(figure, record, len(own))
            for record in own
            for figure in _figures(record, [p.effect for p in settled if record.key in p.effect.evidence], margin)
        ]


def leave_out(model: nn.Module, data: ImageData, size: int, bench: Workbench) -> Outcome:
    """The answers of `model` on the held-out images, `size` at a time, intact and without each block."""
    images = data.validation
    parts = anatomy(model)
    if parts.head is None or isinstance(parts.head, nn.Identity):
        empty: LeftOut = {"measure": None, "n": len(images), "works": False, "intact": None, "blocks": []}
        notes = ["the model has no head: there are no predictions to lose"]
        return Outcome(dict(empty), context={"notes": notes})
    intact = reference_predictions(model, images, data.classes, size)
    notes, blocks = list(intact.notes), list[Json]()
    for block in parts.blocks:
        bench.note(f"without block {block.index + 1} of {parts.depth}", (block.index + 1) / (parts.depth + 1))
        entry: dict[str, Json] = {"block": block.index + 1, "path": block.path, "correct": None}
        try:
            shorter = drop_blocks(model, [block.index])
        except SurgeryError as problem:
            notes.append(f"block {block.index + 1} cannot be removed: {problem.given}")
        else:
            without, _ = predictions(shorter, images, size)
            entry["correct"] = to_bits(without.argmax(1) == intact.truth)
        blocks.append(entry)
    result: LeftOut = {
        "measure": intact.measure,
        "n": len(images),
        "works": intact.works,
        "intact": to_bits(intact.right),
        "blocks": blocks,
    }
    return Outcome(dict(result), context={"notes": notes})


def block_effects(record: Record, margin: float) -> list[Effect]:
    """The loss without each block that can be removed."""
    result = record.result
    intact = from_bits(result["intact"])
    quantity, depth = measure(record), len(result["blocks"])
    baseline = sum(intact) / len(intact) if quantity == ACCURACY else None
    return [
        Effect(
            f"block-{entry['block']}", model_name(record.cell), f"Removing block {entry['block']} of {depth}", quantity,
            accuracy_loss(intact, from_bits(entry["correct"]), margin, unit="images"), baseline,
            judged=judged(record), evidence=(record.key,), series="blocks",
            remedy=Remedy(
                saved_source(record.cell), "drop_blocks", {"indices": [entry["block"] - 1]},
                "Remove the block; the smaller model is saved in `smaller` and loads like any other.",
            ),
        )
        for entry in result["blocks"]
        if entry["correct"] is not None
    ]  # fmt: skip


def _lead(record: Record, effects: Sequence[Effect]) -> str:
    least = min(effects, key=lambda effect: effect.estimate.value)
    most = max(effects, key=lambda effect: effect.estimate.value)

    def name(effect: Effect) -> str:
        return f"{effect.id.replace('-', ' ')} ({written(effect.estimate.value, effect.quantity.unit)})"

    what = "accuracy" if measure(record) == ACCURACY else "unchanged predictions"
    return (
        f"Each of the {len(record.result['blocks'])} blocks was left out in turn, nothing retrained, and the model "
        f"tried on {record.result['n']} held-out images. In {what}, {name(most)} is missed most, {name(least)} least."
    )


def _figures(record: Record, effects: Sequence[Effect], margin: float) -> list[Figure]:
    caption = (
        f"Each row leaves out one block and keeps the rest as trained; {record.result['n']} held-out images, the same "
        "for every row. A block whose whole interval lies left of the dashed line is dead weight, one wholly right of "
        "it is needed, once corrected for the number of blocks."
    )
    names = {effect.id: effect.id.replace("-", " ") for effect in effects}
    title = f"What is lost without a block: {measure(record).name}"
    return interval_plots("depth-skip", effects, margin, title=title, caption=caption, names=names)


__all__ = ["LeaveOut", "LeftOut", "block_effects", "leave_out"]
