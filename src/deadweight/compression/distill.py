"""A short distillation towards the original's outputs; labels are never used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.compression.outcome import Evaluator, answered
from deadweight.errors import DeadweightError
from deadweight.surgery.calibration import Inputs

RATE = 1e-4  # of AdamW, warmed up over a tenth of the steps and brought to zero along a cosine
CHECKS = 4  # times the held-out error is looked at on the way; the best weights are kept


def distill(
    small: nn.Module,
    original: nn.Module,
    inputs: Sequence[Inputs],
    evaluator: Evaluator,
    steps: int,
    note: Callable[[str, float], None],
) -> tuple[float, float]:
    """Train the blocks and the final norm of `small`, in place; (divergence before, divergence after) by `evaluator`.

    The loss is the Kullback-Leibler divergence from the original's predictions, where there is a head, plus the
    squared error of the final feature as a share of its size. Where it does not lower the divergence, the weights
    stay as they were.
    """  # fmt: skip
    parts = anatomy(small)
    trained = [part for part in (*(block.module for block in parts.blocks), parts.norm) if part is not None]
    wanted = {id(p): p for part in trained for p in part.parameters() if p.is_floating_point()}
    flags = {p: p.requires_grad for p in small.parameters()}
    for parameter in flags:
        parameter.requires_grad_(id(parameter) in wanted)
    with torch.no_grad():
        start = best = evaluator.evaluate(small).divergence
    kept = _copied(wanted)
    optimizer = torch.optim.AdamW(list(wanted.values()), lr=RATE, weight_decay=0.0)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    try:
        for step, batch in zip(range(1, steps + 1), _forever(inputs), strict=False):
            loss = _loss(small, original, batch)
            if not bool(loss.isfinite()):
                raise DeadweightError(f"distillation: the loss is {float(loss)} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(list(wanted.values()), 1.0)
            optimizer.step()
            schedule.step()
            note(f"distilling, step {step} of {steps}", step / steps)
            if step % max(1, steps // CHECKS) == 0 or step == steps:
                with torch.no_grad():
                    divergence = evaluator.evaluate(small).divergence
                if divergence < best:
                    best, kept = divergence, _copied(wanted)
    finally:
        with torch.no_grad():
            for key, parameter in wanted.items():
                parameter.copy_(kept[key])
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
    return start, best


def _loss(small: nn.Module, original: nn.Module, batch: Inputs) -> Tensor:
    with torch.no_grad():
        wanted = answered(original, lambda: batch.call(original))
    with torch.enable_grad():
        found = answered(small, lambda: batch.call(small))
        target = wanted.features.float()
        mask = batch.mask
        error = (found.features.float() - target).square().sum(-1) / target.square().sum(-1).clamp_min(1e-12)
        if mask is not None and error.shape == mask.shape:
            error = error[mask.bool()]
        loss = error.mean()
        if found.logits is not None and wanted.logits is not None:
            student, teacher = (F.log_softmax(one.logits.float(), dim=-1) for one in (found, wanted))  # type: ignore[union-attr]
            divergence = F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
            if mask is not None and divergence.shape == mask.shape:
                divergence = divergence[mask.bool()]
            loss = loss + divergence.mean()
    return loss


def _forever(inputs: Sequence[Inputs]) -> Iterator[Inputs]:
    return cycle(inputs)


def _copied(parameters: dict[int, nn.Parameter]) -> dict[int, Tensor]:
    return {key: parameter.detach().clone() for key, parameter in parameters.items()}
