"""A vision model somebody brings, with a third of its MLPs taken out, refitted and not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypedDict

import pandas as pd
import torch
from torch import Tensor, nn

from deadweight.data import ImageData
from deadweight.errors import SurgeryError
from deadweight.evaluation import from_bits, predictions, reference_predictions, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.meters import count
from deadweight.models import torch_dtype
from deadweight.probes.model_facts import fingerprint
from deadweight.report import Figure, Table
from deadweight.statistics import accuracy_loss
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef
from deadweight.studies.frame.page import interval_plots, with_interval
from deadweight.studies.frame.quantity import ACCURACY, AGREEMENT
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.mlp.surgeries import REMEDY, SURGERIES, WHAT, refitted

CALIBRATION = 128  # training images, without their labels, that the refit looks at
_BATCH = 16


class Cuts(TypedDict):
    """The result: which answers were right and what is left, intact and by cut; ``refit``: towards what.

    measure: ``accuracy``, or ``agreement`` with the intact model. works: whether the intact model beats the commonest
    class. calibration, n: images refitted on, and judged on.
    """

    measure: str
    n: int
    calibration: int
    works: bool
    intact: dict[str, Json]
    cuts: dict[str, Json]


class CutVision(Experiment):
    """Narrows and shares the MLPs of a model as it stands, and holds the answers against those of the intact one."""

    kind: ClassVar[str] = "cut"
    bytes_per_cell: ClassVar[int] = 6_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        if study.vision is None:
            return []
        data = study.pictures()
        params: dict[str, Json] = {
            "vision": study.vision, "images": study.images, "limit": study.limit, "dtype": study.dtype,
            "trained": ModelRef(study.vision).trained, "calibration": CALIBRATION,
        }  # fmt: skip
        sources = {"vision": fingerprint(study.examined()), "images": data.fingerprint}
        seconds = 2 + len(data.validation) / 20
        return [Cell(study.kind, self.kind, params, sources=sources, version=study.version, seconds=seconds)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        intact = study.examined().to(bench.device, torch_dtype(study.dtype))
        return cut_and_refit(intact, study.pictures(), bench.note)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            self._effect(record, name, margin) for record in self.own(records) for name in record.result["cuts"]
        ]  # fmt: skip

    def _effect(self, record: Record, name: str, margin: float) -> Effect:
        result, params = record.result, record.cell.params
        intact, cut = result["intact"], result["cuts"][name]
        accuracy = result["measure"] == "accuracy"
        right = from_bits(intact["correct"])
        removed = 1 - cut["parameters"] / intact["parameters"]
        arguments = {"images": params["images"], "parameters": round(1 - removed, 2)}
        return Effect(
            f"cut-{name}", str(params["vision"]),
            f"{WHAT[name]}, refitted without labels, removes {removed:.0%} of the parameters and",
            ACCURACY if accuracy else AGREEMENT,
            accuracy_loss(right, from_bits(cut["correct"]), margin, unit="images"),
            sum(right) / len(right) if accuracy else None,
            judged=bool(params["trained"]) and bool(result["works"]),
            remedy=Remedy(str(params["vision"]), "compress", arguments, REMEDY),
            evidence=(record.key,),
        )  # fmt: skip

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        return [_lead(record) for record in self.own(records)]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        effects = [pair.effect for pair in settled]
        names = {effect.id: effect.id.removeprefix("cut-") for effect in effects}
        title = "What cutting costs without retraining"
        return interval_plots("mlp-cut", effects, margin, title=title, names=names)

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        effects = {pair.effect.id: pair.effect for pair in settled}
        return [_table(record, effects) for record in self.own(records) if record.result["cuts"]]


def cut_and_refit(intact: nn.Module, data: ImageData, note: Callable[[str, float], None]) -> Outcome:
    """`intact` cut two ways; what is left is refitted on training images and judged on held-out ones.

    A cut that the model does not allow is left out, and a note says why.
    """
    weight = next(intact.parameters())
    before = reference_predictions(intact, data.validation, data.classes, 64)
    picture = data.validation[0][0][None].to(weight.device, weight.dtype)
    batches = calibration_images(data)
    cuts: dict[str, Json] = {}
    notes = list(before.notes)
    for done, (name, surgery) in enumerate(SURGERIES.items(), start=1):
        note(f"{name}, refitted", done / (len(SURGERIES) + 1))
        try:
            cut, target = refitted(surgery, intact, batches)
        except SurgeryError as problem:
            notes.append(f"{name}: {problem.given}")
            continue
        answers, _ = predictions(cut, data.validation, 64)
        right = to_bits(answers.argmax(1) == before.truth)
        cuts[name] = {"correct": right, "refit": target, **count(cut, picture).as_json()}
    result: Cuts = {
        "measure": before.measure,
        "n": len(data.validation),
        "calibration": sum(len(batch) for batch in batches),
        "works": before.works,
        "intact": {"correct": to_bits(before.right), **count(intact, picture).as_json()},
        "cuts": cuts,
    }
    return Outcome(dict(result), context={"notes": notes})


def calibration_images(data: ImageData) -> list[Tensor]:
    """Pictures spread over the training images, which come class by class."""
    total = len(data.train)
    chosen = torch.linspace(0, total - 1, min(CALIBRATION, total)).round().long().tolist()
    pictures = [data.train[index][0] for index in chosen]
    return [torch.stack(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]


def _lead(record: Record) -> str:
    result = record.result
    notes = [note[:1].upper() + note[1:] + "." for note in record.context.get("notes", [])]
    size = result["intact"]["parameters"]
    kept = [
        f"{name} keeps {_share(cut['correct']):.1%} (with {1 - cut['parameters'] / size:.0%} fewer parameters)"
        for name, cut in result["cuts"].items()
    ]
    what = "accuracy" if result["measure"] == "accuracy" else "agreement with itself"
    start = (
        f"{record.cell.params['vision']} was cut, refitted in closed form, and not trained; intact, its {what} on "
        f"{result['n']} images is {_share(result['intact']['correct']):.1%}"
    )
    return " ".join(["; ".join([start, *kept]) + ".", *notes])


def _table(record: Record, effects: dict[str, Effect]) -> Table:
    measure = record.result["measure"]
    rows = []
    for name, part in [("intact", record.result["intact"]), *record.result["cuts"].items()]:
        effect = effects.get(f"cut-{name}")
        rows.append(
            {
                "model": name,
                "parameters": int(part["parameters"]),
                "unique MLPs": part["unique_mlps"],
                "MACs": int(part["macs"]),
                f"{measure} %": f"{100 * _share(part['correct']):.2f}",
                "loss": "–" if effect is None else with_interval(effect.estimate, effect.quantity),
            }
        )
    caption = "shallow keeps two thirds of each MLP's units, by what they do; grouped shares MLPs between neighbours."
    return Table("The model as it is and as it was cut", pd.DataFrame(rows), caption)


def _share(bits: str) -> float:
    return bits.count("1") / len(bits)


__all__ = ["CALIBRATION", "CutVision", "Cuts", "calibration_images", "cut_and_refit"]
