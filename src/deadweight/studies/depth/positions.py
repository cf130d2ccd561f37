"""The positional encoding at other strengths: accuracy, and how the curves move (the paper's PE strength)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import pandas as pd
from torch import nn

from deadweight.data import ImageData
from deadweight.errors import SurgeryError
from deadweight.evaluation import batches, from_bits, predictions, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.probes import profile
from deadweight.report import Figure, charts
from deadweight.statistics import accuracy_loss
from deadweight.studies.depth.cells import cell_about, measure, of_model, plain_rows
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name
from deadweight.studies.frame.page import interval_plots
from deadweight.studies.frame.verdicts import Settled
from deadweight.surgery import scale_positions

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
_CURVES = ("raw_similarity", "centered_similarity", "cls_similarity", "pe_dominance", "isi", "ncm_accuracy")


class Strengths(TypedDict):
    """The result. strengths: ``{strength, correct, table}``: bits of right answers, and the curves at each."""

    measure: str | None
    n: int
    intact: str
    strengths: list[Json]


class Positions(Experiment):
    """The learned positional encoding multiplied by a number, nothing retrained."""

    kind: ClassVar[str] = "positions"
    bytes_per_cell: ClassVar[int] = 23_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        wanted = subject is not None and "positions" in study.experiments
        return [cell_about(study, self.kind, subject, effort=1.5)] if wanted and subject is not None else []

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        return at_strengths(model, data, study.batch_size, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            Effect(
                f"position-strength-{step['strength']:g}", model_name(record.cell),
                f"Multiplying the positional encoding by {step['strength']:g}", measure(record),
                accuracy_loss(from_bits(record.result["intact"]), from_bits(step["correct"]), margin, unit="images"),
                evidence=(record.key,), shown=False,
            )
            for record in self.own(records)
            for step in record.result["strengths"]
        ]  # fmt: skip

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        own = [record for record in self.own(records) if record.result["strengths"]]
        return [
            of_model(figure, record, len(own))
            for record in own
            for figure in _figures(record, [p.effect for p in settled if record.key in p.effect.evidence])
        ]


def at_strengths(model: nn.Module, data: ImageData, size: int, bench: Workbench) -> Outcome:
    """Answers and curves of `model` at each strength of its positional encoding."""
    images = data.validation
    intact = reference_predictions(model, images, data.classes, size)
    strengths: list[Json] = []
    for number, strength in enumerate(STRENGTHS):
        bench.note(f"positions × {strength:g}", number / len(STRENGTHS))
        try:
            changed = scale_positions(model, strength)
        except SurgeryError as problem:
            return Outcome({"measure": None, "n": len(images), "strengths": []},
                           context={"notes": [f"positional encoding: {problem.given}"]})  # fmt: skip
        found = profile(changed, batches(images, size), probes=_CURVES)
        answers, _ = predictions(changed, images, size)
        strengths.append({
            "strength": strength,
            "correct": to_bits(answers.argmax(1) == intact.truth),
            "table": plain_rows(found.table()),
        })  # fmt: skip
    result: Strengths = {"measure": intact.measure, "n": len(images), "intact": to_bits(intact.right),
                         "strengths": strengths}  # fmt: skip
    return Outcome(dict(result), context={"notes": list(intact.notes)})


def _figures(record: Record, effects: Sequence[Effect]) -> list[Figure]:
    caption = (
        "The learned positional encoding multiplied by a number, nothing retrained: 0 takes it away, 1 is the model as "
        f"it is. {record.result['n']} held-out images, paired by image."
    )
    names = {effect.id: f"× {effect.id.removeprefix('position-strength-')}" for effect in effects}
    title = f"Positions turned up and down: loss of {measure(record).name}"
    found = interval_plots("depth-positions", effects, title=title, caption=caption, names=names)
    frame = pd.DataFrame(
        {"strength": f"× {step['strength']:g}", **row} for step in record.result["strengths"] for row in step["table"]
    )
    frame = frame[frame["centered_similarity"].notna()][["strength", "layer", "centered_similarity"]]
    frame["centered_similarity"] = frame["centered_similarity"].astype(float)
    chart = charts.line(frame, "layer", "centered_similarity", color="strength", y_title="mean cosine")
    caption = (
        "Similarity of an image's patches, mean patch subtracted, at each strength: the first layers' fall is its."
    )
    return [*found, Figure("depth-positions-curves", "What the positions do to the first layers", caption, chart)]


__all__ = ["Positions", "Strengths", "at_strengths"]
