"""Training a classifier: accelerate runs the steps, timm gives the parts, the seed decides everything."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.data import ImageData
from deadweight.errors import DeadweightError
from deadweight.evaluation import logits_of
from deadweight.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from deadweight.training.curves import Curves
from deadweight.training.evaluate import evaluate
from deadweight.training.feed import chunked
from deadweight.training.parts import Parts, engine, set_drop_path
from deadweight.training.randomness import epoch_order, reseed, streams_kept
from deadweight.training.recipe import Recipe

Note = Callable[[str, float | None], None]

LOOK_SECONDS = 1.0  # between looks at the losses, for looking makes an accelerator wait
LOOK_STEPS = 50  # at most


class Diverged(DeadweightError, ArithmeticError):
    """The loss is not a number any more."""


def train(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    *,
    folder: str | os.PathLike[str] | None = None,
    note: Note | None = None,
    device: torch.device | str | None = None,
    checkpoint_seconds: float = 10.0,
    workers: int = 0,
    trackers: Sequence[str] = (),
    tracker_folder: str | os.PathLike[str] | None = None,
) -> Curves:
    """Train `model` in place and leave it in eval mode.

    Deterministic from the recipe's seed and the model's first weights. All randomness of a step follows from
    (seed, step), so a run resumed from a checkpoint reaches the same weights, bit for bit, on the same machine.
    Under torchrun the processes share every batch; the batches are those of a single process.

    Parameters
    ----------
    folder:
        Where checkpoints are kept; a run of the same recipe, data and first weights that was stopped goes on there.
    note:
        Called as ``note(text, share done)`` about once a second and after each epoch, in the first process only.
    device:
        By default the machine's accelerator, else the CPU.
    checkpoint_seconds:
        Write one at the first look after so many seconds (a look: about every second, and at an epoch's end).
    workers:
        Processes that read and augment pictures; the weights reached do not depend on their number.
    trackers:
        Names accelerate knows, e.g. ``("tensorboard",)``: the curves go there after each epoch.

    Raises
    ------
    Diverged
        A loss that is not finite; the message names the step. The checkpoint before it is kept.
    InputError
        Labels the model has no output for; a batch that cannot be divided; pictures that cannot be augmented.

    Examples
    --------
    >>> import tempfile, deadweight as dw
    >>> data, model = dw.load_images("embedded:digits", limit=40), dw.load("embedded:digits-vit")
    >>> curves = train(model, data, dw.Recipe.mini(epochs=2, seed=0), folder=tempfile.mkdtemp())
    >>> len(curves.top1)
    2
    """
    own = vars(model).get("forward")
    accelerator = engine(recipe, device, trackers=trackers, tracker_folder=_path(tracker_folder))
    model.to(accelerator.device)
    set_drop_path(model, recipe.drop_path)
    identity = _agreed(accelerator, _identity(model, data, recipe))
    parts = Parts(model, data, recipe, accelerator, workers)
    if trackers:
        accelerator.init_trackers("deadweight", config={name: _plain(value) for name, value in asdict(recipe).items()})
    run = _Run(
        parts, recipe, identity, _path(folder), note if accelerator.is_main_process else None, checkpoint_seconds
    )
    try:
        with streams_kept(accelerator.device):
            return run.go()
    finally:
        _unwrap(accelerator.unwrap_model(parts.model).eval(), own)
        for tracker in accelerator.trackers:
            tracker.finish()


class _Run:
    """One training under way: epochs of steps, with a look at the losses now and then."""

    def __init__(
        self, parts: Parts, recipe: Recipe, identity: str, folder: Path | None, note: Note | None, pause: float
    ) -> None:
        self.parts, self.recipe, self.identity, self.folder, self.note = parts, recipe, identity, folder, note
        self.pause, self.written = pause, time.monotonic()
        self.progress = Progress()
        if folder is not None:
            self.progress = read_checkpoint(folder, parts.state, identity=identity)

    def go(self) -> Curves:
        parts, curves = self.parts, self.progress.curves
        for epoch in range(self.progress.step // parts.steps, self.recipe.epochs):
            losses = self._epoch(epoch)
            curves.train_loss.append(float(losses.double().mean()))
            curves.lr.append(float(parts.optimizer.param_groups[0]["lr"]))
            self._score(parts.model, "")
            if parts.ema is not None:
                self._score(parts.ema.module, "ema_")
            parts.accelerator.log(curves.latest(), step=epoch + 1)
            self.progress.losses = []
            self._checkpoint()
            if self.note is not None:
                told = f"epoch {epoch + 1} of {self.recipe.epochs}: top-1 {curves.top1[-1]:.1%}"
                self.note(told, (epoch + 1) / self.recipe.epochs)
        return curves

    def _score(self, model: nn.Module, prefix: str) -> None:
        with self.parts.accelerator.autocast():
            scores = evaluate(model, self.parts.validation, accelerator=self.parts.accelerator)
        for name in ("loss", "top1", "top5"):
            getattr(self.progress.curves, prefix + name).append(getattr(scores, name))

    def _epoch(self, epoch: int) -> Tensor:
        """The steps of an epoch that are not done yet; the losses of all of its steps, over all processes."""
        parts, recipe, accelerator = self.parts, self.recipe, self.parts.accelerator
        order, draws = epoch_order(len(parts.train), seed=recipe.seed, epoch=epoch, repeats=recipe.repeats)
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        done = self.progress.step - epoch * parts.steps
        chunks, some = (
            [
                part
                for batch in chunked(values, parts.batch)[done : parts.steps]
                for part in chunked(batch[mine], parts.micro)
            ]
            for values in (order, draws)
        )
        losses = torch.full((parts.steps,), float("nan"), device=accelerator.device)
        losses[:done] = torch.tensor(self.progress.losses[:done])
        batches = parts.train.batches(chunks, some)
        parts.model.train()
        looked, every, began = done, 1, time.monotonic()
        for step in range(done, parts.steps):
            losses[step] = self._step(batches, epoch * parts.steps + step)
            if step + 1 - looked >= every or step + 1 == parts.steps:
                self._look(losses, looked, step + 1, epoch)
                seconds = time.monotonic() - began
                every = _agreed(accelerator, max(1, min(LOOK_STEPS, round(LOOK_SECONDS * (step + 1 - done) / seconds))))
                looked = step + 1
                if step + 1 < parts.steps:
                    self._checkpoint()
                    self._tell(epoch, step + 1, parts.batch * (step + 1 - done) / seconds)
        return losses

    def _step(self, batches: Any, number: int) -> Tensor:
        """One update of the weights, from as many parts of a batch as the recipe accumulates."""
        parts, accelerator = self.parts, self.parts.accelerator
        parts.scheduler.step_update(number)
        total = torch.zeros((), device=accelerator.device)
        for piece in range(self.recipe.accumulation):
            read = next(batches)  # before the streams are set: reading draws from them, here or in a worker
            reseed(self.recipe.seed, "step", number, piece, accelerator.process_index, device=accelerator.device)
            images, targets = parts.mixed(*read)
            with accelerator.accumulate(parts.model):
                loss = parts.loss(logits_of(parts.model(images)), targets)
                accelerator.backward(loss)
                if accelerator.sync_gradients and self.recipe.clip_grad is not None:
                    accelerator.clip_grad_norm_(parts.model.parameters(), self.recipe.clip_grad)
                parts.optimizer.step()
                parts.optimizer.zero_grad()
            total += loss.detach() / self.recipe.accumulation
        if parts.ema is not None:
            parts.ema.update(accelerator.unwrap_model(parts.model), step=number)
        return total

    def _look(self, losses: Tensor, start: int, end: int, epoch: int) -> None:
        """Make the losses since the last look those of all processes, and stop where one is no number."""
        new = self.parts.accelerator.reduce(losses[start:end].clone(), reduction="mean")
        losses[start:end] = new
        self.progress.step = epoch * self.parts.steps + end
        self.progress.losses += new.tolist()
        wrong = (~new.isfinite()).nonzero()
        if len(wrong):
            step = start + int(wrong[0])
            self._stop(f"the loss became {float(losses[step])}", epoch * self.parts.steps + step, epoch)

    def _stop(self, what: str, step: int, epoch: int) -> None:
        kept = (
            "" if self.folder is None or not any(self.folder.glob("step-*")) else f"; {self.folder} holds the last good"
        )
        raise Diverged(
            f"{what} at step {step + 1} (epoch {epoch + 1})",
            expected="a finite loss",
            cure=f"lower lr, give more warmup_epochs, or set clip_grad{kept}",
        )

    def _checkpoint(self) -> None:
        if self.folder is None or not self.parts.accelerator.is_main_process:
            return
        if time.monotonic() - self.written >= self.pause:
            state = self.parts.state
            if not state.finite():  # the last step's loss was a number and its update was not: keep the one before
                step = self.progress.step - 1
                self._stop("the weights became no numbers", step, step // self.parts.steps)
            write_checkpoint(self.folder, state, self.progress, identity=self.identity)
            self.written = time.monotonic()

    def _tell(self, epoch: int, step: int, rate: float) -> None:
        if self.note is not None:
            steps, epochs = self.parts.steps, self.recipe.epochs
            told = f"epoch {epoch + 1} of {epochs}, step {step} of {steps}: loss {self.progress.losses[-1]:.3f}"
            self.note(f"{told}, {rate:.0f} images/s", (epoch + step / steps) / epochs)


def _unwrap(model: nn.Module, own: Any) -> None:
    """Take back the forward accelerate put on the model for mixed precision; `own` is what the instance had."""
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
    if own is not None:
        vars(model)["forward"] = own


def _agreed(accelerator: Any, value: Any) -> Any:
    """The first process's value, in all of them."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def _path(folder: str | os.PathLike[str] | None) -> Path | None:
    return None if folder is None else Path(folder)


def _plain(value: Any) -> Any:
    """What every tracker takes as a setting."""
    return value if isinstance(value, (int, float, str)) else str(value)


def _identity(model: nn.Module, data: ImageData, recipe: Recipe) -> str:
    """A digest of recipe, data and first weights."""
    total = hashlib.blake2b(json.dumps([asdict(recipe), data.fingerprint], sort_keys=True).encode(), digest_size=12)
    for name, tensor in model.named_parameters():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
