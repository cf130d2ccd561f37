"""Training a classifier: accelerate runs the steps, timm gives the parts, the seed decides everything."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.errors import DeadweightError, InputError
from deadweight.training.checkpoint import read_checkpoint, write_checkpoint
from deadweight.training.curves import Curves
from deadweight.training.evaluate import evaluate, logits_of
from deadweight.training.feed import Feed, chunked
from deadweight.training.recipe import Recipe

Note = Callable[[str, float | None], None]


class Diverged(DeadweightError, ArithmeticError):
    """The loss is not a number any more."""


def train(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    *,
    folder: Path | None = None,
    note: Note | None = None,
    device: torch.device | str | None = None,
    checkpoint_seconds: float = 10.0,
) -> Curves:
    """Train `model` in place and leave it in eval mode.

    Deterministic from the recipe's seed and the model's first weights. All randomness of an epoch follows from
    (seed, epoch), so a run resumed from a checkpoint reaches the same weights, bit for bit, on the same machine.

    Parameters
    ----------
    folder:
        Where checkpoints are kept; a run of the same recipe, data and first weights that was stopped goes on there.
    note:
        Called as ``note(text, share done)`` after each epoch.
    checkpoint_seconds:
        Write one at the first epoch boundary after so many seconds; 0 for every epoch.

    Raises
    ------
    Diverged
        A loss that is not finite; the message names the step.
    """
    from accelerate import Accelerator

    where = torch.device(device) if device is not None else torch.device("cpu")
    accelerator = Accelerator(cpu=where.type == "cpu")
    identity = _identity(model, data, recipe)
    model.to(accelerator.device)
    _set_drop_path(model, recipe.drop_path)
    parts = _Parts(model, data, recipe, accelerator)
    kept: dict[str, nn.Module] = {"model": model} | ({"ema": parts.ema.module} if parts.ema is not None else {})
    done, curves = 0, Curves()
    if folder is not None:
        done, curves = read_checkpoint(folder, identity=identity, models=kept, optimizer=parts.optimizer)
    last = time.monotonic()
    for epoch in range(done, recipe.epochs):
        with _seeded(recipe.seed, epoch):
            curves.train_loss.append(_epoch(parts, recipe, epoch))
        scores = evaluate(model, parts.validation)
        curves.top1.append(scores.top1)
        curves.top5.append(scores.top5)
        if parts.ema is not None:
            curves.ema_top1.append(evaluate(parts.ema.module, parts.validation).top1)
        if folder is not None and accelerator.is_main_process and time.monotonic() - last >= checkpoint_seconds:
            write_checkpoint(
                folder, epoch + 1, identity=identity, curves=curves, models=kept, optimizer=parts.optimizer
            )
            last = time.monotonic()
        if note is not None:
            note(f"epoch {epoch + 1} of {recipe.epochs}: top-1 {scores.top1:.1%}", (epoch + 1) / recipe.epochs)
    model.eval()
    return curves


class _Parts:
    """Everything one run is made of, built once."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, accelerator: Any) -> None:
        from timm.data import Mixup
        from timm.data.random_erasing import RandomErasing
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        device = accelerator.device
        self.accelerator = accelerator
        self.train, self.validation = Feed(data.train, device), Feed(data.validation, device)
        self.batch = min(recipe.batch_size, len(self.train))
        self.steps = len(self.train) // self.batch
        plain = create_optimizer_v2(
            model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, fused=device.type in ("cpu", "cuda")
        )
        self.scheduler, _ = create_scheduler_v2(
            plain,
            sched="cosine",
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.lr / 1000,
            step_on_epochs=False,
            updates_per_epoch=self.steps,
        )
        # without its buffers-as-state path, which visits a tensor once per name and so averages shared ones twice
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay, exclude_buffers=True) if recipe.ema_decay else None
        self.model, self.optimizer = accelerator.prepare(model, plain)
        self.mixup: Any = None
        if recipe.mixup > 0 or recipe.cutmix > 0:
            if self.batch % 2:
                raise InputError(f"a batch of {self.batch} with mixup", expected="an even batch size")
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=len(data.classes),
            )
        erasing = RandomErasing(recipe.random_erasing, mode="pixel", device=device.type)
        self.erasing: Any = erasing if recipe.random_erasing > 0 else None
        self.loss: nn.Module = nn.CrossEntropyLoss()
        if self.mixup is not None:
            self.loss = SoftTargetCrossEntropy()
        elif recipe.label_smoothing > 0:
            self.loss = LabelSmoothingCrossEntropy(recipe.label_smoothing)


def _epoch(parts: _Parts, recipe: Recipe, epoch: int) -> float:
    """One pass over the training images; the mean loss."""
    accelerator = parts.accelerator
    order = torch.randperm(len(parts.train))[: parts.steps * parts.batch]
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    chunks = [chunk[mine] for chunk in chunked(order, parts.batch)]
    losses = torch.full((parts.steps,), float("nan"), device=accelerator.device)
    parts.model.train()
    for step, (images, labels) in enumerate(parts.train.batches(chunks)):
        targets: Tensor = labels
        if parts.erasing is not None:
            images = parts.erasing(images)
        if parts.mixup is not None:
            images, targets = parts.mixup(images, labels)
        parts.scheduler.step_update(epoch * parts.steps + step)
        loss = parts.loss(logits_of(parts.model(images)), targets)
        accelerator.backward(loss)
        parts.optimizer.step()
        parts.optimizer.zero_grad()
        if parts.ema is not None:
            parts.ema.update(accelerator.unwrap_model(parts.model), step=epoch * parts.steps + step)
        losses[step] = loss.detach()
        if step % 50 == 49:
            _check_finite(losses[: step + 1], epoch, parts.steps)
    _check_finite(losses, epoch, parts.steps)
    return float(losses.double().mean())


def _check_finite(losses: Tensor, epoch: int, steps: int) -> None:
    """Looked at now and then rather than every step, which would make an accelerator wait."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        raise Diverged(
            f"the loss became {float(losses[step])} at step {epoch * steps + step + 1} (epoch {epoch + 1})",
            expected="a finite loss",
            cure="lower lr, or give more warmup_epochs",
        )


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[None]:
    """Set every random stream the parts draw from, and put them back as they were.

    torch drives the order, dropout and drop-path, numpy timm's mixup, Python timm's random erasing.
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=4).digest()
    number = int.from_bytes(digest, "little")
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _identity(model: nn.Module, data: ImageData, recipe: Recipe) -> str:
    """A digest of recipe, data and first weights."""
    total = hashlib.blake2b(json.dumps([asdict(recipe), data.fingerprint], sort_keys=True).encode(), digest_size=12)
    for name, tensor in model.named_parameters():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _set_drop_path(model: nn.Module, rate: float) -> None:
    """Give each block's residual branches their rate, rising linearly over depth."""
    if rate == 0:
        return
    from timm.layers import DropPath

    blocks = anatomy(model).blocks
    for block in blocks:
        places = [name for name in ("drop_path", "drop_path1", "drop_path2") if hasattr(block.module, name)]
        if not places:
            raise InputError(
                f"drop_path {rate}: block {block.path} has no place for it", expected="a timm model, or drop_path=0"
            )
        for name in places:
            setattr(block.module, name, DropPath(rate * block.index / max(1, len(blocks) - 1)))
