"""What CLS is for: patches kept from attending to it, and readouts from the mean patch in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.evaluation import from_bits, predictions, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.probes import DepthProfile
from deadweight.report import Figure, Table
from deadweight.statistics import accuracy_loss
from deadweight.studies.depth.cells import cell_about, measure
from deadweight.studies.depth.profile import Profile
from deadweight.studies.depth.shards import FILE
from deadweight.studies.frame.effects import Effect, sentence
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name
from deadweight.studies.frame.page import with_interval
from deadweight.studies.frame.quantity import ACCURACY
from deadweight.studies.frame.verdicts import Settled


class Ablated(TypedDict):
    """The result. masked: bits of right answers with CLS hidden from the patches, None where that was not possible;
    readouts: by feature (``cls``, ``pooled``) and kind, bits of right readouts of the final layer."""

    measure: str | None
    n: int
    intact: str
    masked: str | None
    readouts: dict[str, Json]


class ClsToken(Experiment):
    """The model without attention to CLS, and readouts without it."""

    kind: ClassVar[str] = "cls"
    bytes_per_cell: ClassVar[int] = 3_400

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        if subject is None or "cls" not in study.experiments:
            return []
        profile = Profile().cells(study, subject)[-1]
        return [cell_about(study, self.kind, subject, needs=[profile.key], effort=0.2)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        found = DepthProfile.load(bench.folder_of(cell.needs[-1]) / FILE)
        return without_cls(model, data, study.batch_size, found)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [effect for record in self.own(records) for effect in _effects(record, margin)]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        hidden = [sentence(pair.effect) for pair in settled if pair.effect.id == "cls-hidden"]
        return hidden if len(hidden) == 1 else []

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        return []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        rows = [
            row
            for record in self.own(records)
            for row in _rows(record, {p.effect.id: p.effect for p in settled if record.key in p.effect.evidence})
        ]
        caption = (
            "Accuracy with the [CLS] token hidden from all patches, and of readouts of the final layer that use CLS or "
            "the mean patch. Losses are differences from the first row of each kind, paired by image."
        )
        return [Table("What CLS is for", pd.DataFrame(rows), caption)] if rows else []


def without_cls(model: nn.Module, data: ImageData, size: int, found: DepthProfile) -> Outcome:
    """Answers with CLS hidden, and the readouts of the profile's final layer."""
    images = data.validation
    parts = anatomy(model)
    if not parts.has_cls:
        return Outcome({"measure": None, "n": len(images)}, context={"notes": ["CLS: the model has no CLS token"]})
    intact = reference_predictions(model, images, data.classes, size)
    notes = list(intact.notes)
    with cls_hidden() as seen:
        answers, _ = predictions(model, images, size)
    masked = to_bits(answers.argmax(1) == intact.truth) if seen.calls else None
    if masked is None:
        notes.append("CLS: this model's attention does not go through torch's fused function, so it was not masked")
    readouts: dict[str, Json] = {}
    for kind in ("cls", "pooled"):
        reading = found.sample.reading(f"{kind}.{found.rows - 1}")
        if reading is not None:
            readouts[kind] = {
                "nearest mean": to_bits(torch.from_numpy(reading.nearest.correct)),
                "ridge": to_bits(torch.from_numpy(reading.ridge == reading.labels)),
            }
    result: Ablated = {"measure": intact.measure, "n": len(images), "intact": to_bits(intact.right),
                       "masked": masked, "readouts": readouts}  # fmt: skip
    return Outcome(dict(result), context={"notes": notes})


class _Hidden(TorchFunctionMode):
    """Self-attention in which only CLS, the first token, sees CLS."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is nn.functional.scaled_dot_product_attention and len(args) >= 3 and args[0].dim() == 4:
            self.calls += 1
            mask = kwargs.pop("attn_mask", args[3] if len(args) > 3 else None)
            hidden = torch.zeros(args[0].shape[-2], args[1].shape[-2], dtype=args[0].dtype, device=args[0].device)
            hidden[1:, 0] = float("-inf")
            if mask is not None:
                hidden = hidden.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else hidden + mask
            args = (*args[:3], hidden, *args[4:])
        return func(*args, **kwargs)


@contextmanager
def cls_hidden() -> Iterator[_Hidden]:
    """While entered, no patch attends to CLS; `calls` counts the attention calls this was done to."""
    with _Hidden() as mode:
        yield mode


_FEATURES = {"cls": "CLS", "pooled": "the mean patch"}


def _effects(record: Record, margin: float) -> list[Effect]:
    result, name = record.result, model_name(record.cell)
    if result["measure"] is None:
        return []
    effects = []
    if result["masked"] is not None:
        loss = accuracy_loss(from_bits(result["intact"]), from_bits(result["masked"]), margin, unit="images")
        effects.append(
            Effect("cls-hidden", name, "Hiding [CLS] from all patches", measure(record), loss, evidence=(record.key,),
                   shown=False)
        )  # fmt: skip
    for kind in ("nearest mean", "ridge"):
        if all(kind in result["readouts"].get(feature, {}) for feature in _FEATURES):
            cls, pooled = (from_bits(result["readouts"][feature][kind]) for feature in _FEATURES)
            removed = f"Reading the mean patch instead of [CLS] ({kind})"
            effects.append(
                Effect(f"cls-readout-{kind.replace(' ', '-')}", name, removed, ACCURACY,
                       accuracy_loss(cls, pooled, margin, unit="images"), evidence=(record.key,), shown=False)
            )  # fmt: skip
    return effects


def _rows(record: Record, effects: dict[str, Effect]) -> list[dict[str, object]]:
    result = record.result
    if result["measure"] is None:
        return []
    rows: list[dict[str, object]] = []

    def add(what: str, bits: str, effect: Effect | None = None) -> None:
        right = from_bits(bits)
        loss = "" if effect is None else with_interval(effect.estimate, effect.quantity)
        name = model_name(record.cell)
        rows.append({"model": name, "what": what, "accuracy": float(np.mean(right)), "loss": loss, "n": len(right)})

    add("the model as it is", result["intact"])
    if result["masked"] is not None:
        add("CLS hidden from the patches", result["masked"], effects.get("cls-hidden"))
    for kind in ("nearest mean", "ridge"):
        for feature, called in _FEATURES.items():
            if feature in result["readouts"]:
                effect = effects.get(f"cls-readout-{kind.replace(' ', '-')}") if feature == "pooled" else None
                add(f"readout ({kind}) of {called}", result["readouts"][feature][kind], effect)
    return rows


__all__ = ["Ablated", "ClsToken", "cls_hidden", "without_cls"]
