"""Beyond describing: the model with other positions, without attention to CLS, with fewer blocks, left early."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, ImageSet
from deadweight.errors import DeadweightError, SurgeryError
from deadweight.lab import Json, Outcome, Workbench
from deadweight.models import load
from deadweight.probes import DepthProfile, profile
from deadweight.studies.answers import batches, predictions, to_bits, yardstick
from deadweight.surgery import drop_blocks, early_exit, save, scale_positions

CALIBRATION, SELECTION, FITTING = 128, 256, 4096  # images
ROUNDS = 7  # of timing
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
_CURVES = ("raw_similarity", "centered_similarity", "cls_similarity", "pe_dominance", "isi", "ncm_accuracy")


def positions(model: nn.Module, data: ImageData, size: int, bench: Workbench) -> Outcome:
    """The positional encoding at other strengths: accuracy, and how the curves move."""
    intact = yardstick(model, data.validation, data.classes, size)
    strengths: list[Json] = []
    notes = list(intact.notes)
    for number, strength in enumerate(STRENGTHS):
        bench.note(f"positions × {strength:g}", number / len(STRENGTHS))
        try:
            changed = scale_positions(model, strength)
        except SurgeryError as problem:
            return Outcome({"measure": None, "n": len(data.validation), "strengths": []},
                           context={"notes": [f"positional encoding: {problem.given}"]})  # fmt: skip
        found = profile(changed, batches(data.validation, size), probes=_CURVES)
        answers, _ = predictions(changed, data.validation, size)
        table = found.table().astype(object)
        strengths.append({
            "strength": strength,
            "correct": to_bits(answers.argmax(1) == intact.truth),
            "table": table.where(table.notna(), None).to_dict("records"),
        })  # fmt: skip
    result: dict[str, Json] = {"measure": intact.measure, "n": len(data.validation), "intact": to_bits(intact.right),
                               "strengths": strengths}  # fmt: skip
    return Outcome(result, context={"notes": notes})


def without_cls(model: nn.Module, data: ImageData, size: int, bench: Workbench, found: DepthProfile) -> Outcome:
    """What CLS is for: patches kept from attending to it, and readouts from the mean patch in its place."""
    images = data.validation
    parts = anatomy(model)
    if not parts.has_cls:
        return Outcome({"measure": None, "n": len(images)}, context={"notes": ["CLS: the model has no CLS token"]})
    intact = yardstick(model, images, data.classes, size)
    notes = list(intact.notes)
    with cls_hidden(parts.depth) as seen:
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
    result: dict[str, Json] = {"measure": intact.measure, "n": len(images), "intact": to_bits(intact.right),
                               "masked": masked, "readouts": readouts}  # fmt: skip
    return Outcome(result, context={"notes": notes})


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
def cls_hidden(depth: int) -> Iterator[_Hidden]:
    """While entered, no patch attends to CLS; `calls` counts the attention calls this was done to."""
    with _Hidden() as mode:
        yield mode


def shorten(model: nn.Module, data: ImageData, size: int, bench: Workbench, influence: Sequence[float]) -> Outcome:
    """Drop blocks chosen by influence, and chosen by what is lost once the rest is refitted; both ways round.

    The measured choice takes one block after another: of all that are left the one whose loss, refitted, changes the
    intact model's answers least (mean Kullback-Leibler divergence on training images; no label is used).
    """
    images, depth = data.validation, anatomy(model).depth
    calibration, selection = _few(data.train, 0, CALIBRATION), _few(data.train, CALIBRATION, SELECTION)
    inputs = [pictures for pictures, _ in calibration]
    intact = yardstick(model, images, data.classes, size)
    wanted = max(1, depth // 4)
    asked = [_logits(model, pictures) for pictures, _ in selection]

    def changed(blocks: Sequence[int]) -> float:
        shorter = drop_blocks(model, blocks, refit="stream", batches=inputs)
        return _divergence(asked, [_logits(shorter, pictures) for pictures, _ in selection])

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
        choices: dict[str, Json] = {}
        for name, blocks in (("influence", by_influence), ("measured", measured)):
            steps: list[Json] = []
            for count in range(1, wanted + 1):
                cut = sorted(blocks[:count])
                plain = drop_blocks(model, cut)
                refitted = drop_blocks(model, cut, refit="stream", batches=inputs)
                steps.append({
                    "blocks": [block + 1 for block in cut],
                    "plain": _right(plain, images, size, intact.truth),
                    "refit": _right(refitted, images, size, intact.truth),
                })  # fmt: skip
            choices[name] = steps
    except SurgeryError as problem:
        return Outcome({"measure": None, "n": len(images), "choices": {}}, context={"notes": [problem.given]})
    bench.folder.mkdir(parents=True, exist_ok=True)
    save(refitted, bench.folder / "shorter")
    result: dict[str, Json] = {"measure": intact.measure, "n": len(images), "works": intact.works,
                               "intact": to_bits(intact.right), "choices": choices}  # fmt: skip
    return Outcome(result, context={"notes": list(intact.notes)})


def leave_early(model: nn.Module, data: ImageData, size: int, bench: Workbench, layer: int) -> Outcome:
    """An exit after block `layer`: its accuracy against the whole model's, saved, loaded again and timed.

    Where `layer` is the last (no earlier one was shown to read as well), the exit tried is one block before the end.
    """
    images, depth = data.validation, anatomy(model).depth
    intact = yardstick(model, images, data.classes, size)
    fitted = _few(data.train, 0, FITTING, size)
    classes = len(data.classes)
    notes, whole, right = list(intact.notes), model, to_bits(intact.right)
    truth = torch.tensor([label for _, labels in batches(images, size) for label in labels])
    if intact.measure != "accuracy":
        whole = early_exit(model, depth, classes=classes, batches=fitted)
        right = _right(whole, images, size, truth)
        notes.append("exit: held against the same kind of readout after the last block")
    useful = 1 <= layer < depth
    if not useful:
        notes.append("exit: no layer between the first and the last reads as well as the last at this margin")
    layer = min(max(1, layer), max(1, depth - 1))
    bench.note(f"an exit after block {layer} of {depth}", 0.3)
    short = early_exit(model, layer, classes=classes, batches=fitted)
    answers, _ = predictions(short, images, size)
    bench.folder.mkdir(parents=True, exist_ok=True)
    save(short, bench.folder / "exit")
    try:
        fresh = load(f"file:{bench.folder / 'exit'}").to(next(short.parameters()))
    except DeadweightError as problem:
        notes.append(f"exit: not loaded again: {problem.given}")
        again = None
    else:
        again = bool(torch.equal(predictions(fresh, images, size)[0], answers))
    seconds = _turns(whole, short, images, size)
    ratios = [one / two for one, two in zip(*seconds, strict=True)]
    result: dict[str, Json] = {
        "layer": layer, "depth": depth, "useful": useful, "n": len(images), "works": intact.works, "whole": right,
        "exit": to_bits(answers.argmax(1) == truth), "same_when_loaded": again,
    }  # fmt: skip
    speed: dict[str, Json] = {
        "whole_seconds": statistics.median(seconds[0]), "exit_seconds": statistics.median(seconds[1]),
        "speedup": statistics.median(ratios), "slowest": min(ratios), "fastest": max(ratios),
        "images": min(size, len(images)),
    }  # fmt: skip
    return Outcome(result, measured={"speed": speed}, context={"notes": notes})


def _turns(
    one: nn.Module, two: nn.Module, images: ImageSet, size: int, rounds: int = 7
) -> tuple[list[float], list[float]]:
    """Seconds of a batch through either model, in turns."""
    weight = next(one.parameters())
    pictures = next(batches(images, size))[0].to(weight.device, weight.dtype)
    seconds: tuple[list[float], ...] = ([], [])
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for model, kept in zip((one, two), seconds, strict=True):
                began = time.perf_counter()
                model(pictures)
                if weight.device.type != "cpu":
                    torch.accelerator.synchronize()
                if turn:  # the first turn warms up
                    kept.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def _few(images: ImageSet, start: int, count: int, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    """`count` of the images, spread evenly; those of another `start` are others while there are enough."""
    step = max(1, len(images) // (CALIBRATION + SELECTION)) if count < FITTING else max(1, -(-len(images) // count))
    chosen = list(range(0, len(images), step))[start : start + count] or list(range(min(count, len(images))))
    pairs = [images[index] for index in chosen]
    return [
        (
            torch.stack([image for image, _ in pairs[at : at + size]]),
            torch.tensor([y for _, y in pairs[at : at + size]]),
        )
        for at in range(0, len(pairs), size)
    ]


def _right(model: nn.Module, images: ImageSet, size: int, truth: Tensor) -> str:
    return to_bits(predictions(model, images, size)[0].argmax(1) == truth)


def _logits(model: nn.Module, pictures: Tensor) -> Tensor:
    weight = next(model.parameters())
    with torch.inference_mode():
        output: Any = model(pictures.to(weight.device, weight.dtype))
    logits: Tensor = getattr(output, "logits", output).float().cpu()
    return logits


def _divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean Kullback-Leibler divergence of the answers after from those before, in nats an image."""
    one, two = torch.cat(list(before)).log_softmax(1), torch.cat(list(after)).log_softmax(1)
    return float((one.exp() * (one - two)).sum(1).mean())
