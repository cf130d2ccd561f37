"""A model somebody brings, with a third of its MLPs taken out, refitted and not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.data import ImageData
from deadweight.errors import SurgeryError
from deadweight.lab import Json, Outcome
from deadweight.meters import count
from deadweight.studies.answers import predictions, to_bits, yardstick
from deadweight.surgery import group_mlps, shallow_mlps

CALIBRATION = 128  # training images, without their labels, that the refit looks at
_BATCH = 16


def cut_and_refit(intact: nn.Module, data: ImageData, note: Callable[[str, float], None]) -> Outcome:
    """`intact` cut two ways; what is left is refitted on training images and judged on held-out ones.

    The result's ``cuts`` hold, by name, which answers were right and what is left; a cut that the model does not allow
    is left out, and a note says why.
    """
    weight = next(intact.parameters())
    before = yardstick(intact, data.validation, data.classes, 64)
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
    result: dict[str, Json] = {
        "measure": before.measure,
        "n": len(data.validation),
        "calibration": sum(len(batch) for batch in batches),
        "works": before.works,
        "intact": {"correct": to_bits(before.right), **count(intact, picture).as_json()},
        "cuts": cuts,
    }
    return Outcome(result, context={"notes": notes})


def calibration_images(data: ImageData) -> list[Tensor]:
    """Pictures spread over the training images, which come class by class."""
    total = len(data.train)
    chosen = torch.linspace(0, total - 1, min(CALIBRATION, total)).round().long().tolist()
    pictures = [data.train[index][0] for index in chosen]
    return [torch.stack(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]


def _narrower(model: nn.Module, **options: Any) -> nn.Module:
    return shallow_mlps(model, 2 / 3, by="activation", **options)


def _shared(model: nn.Module, **options: Any) -> nn.Module:
    return group_mlps(model, 2, merge="union", **options)


SURGERIES: dict[str, Callable[..., nn.Module]] = {"shallow": _narrower, "grouped": _shared}


def refitted(surgery: Callable[..., nn.Module], intact: nn.Module, batches: list[Tensor]) -> tuple[nn.Module, str]:
    """Towards the stream, or where a block does not add to it as it is, towards each layer's own output."""
    try:
        return surgery(intact, refit="stream", batches=batches), "stream"
    except SurgeryError:
        return surgery(intact, refit="layer", batches=batches), "layer"
