"""Training a small language model on bytes, so that models differ in nothing but what is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deadweight.errors import InputError

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
WARM_UP = 0.1  # share of the steps
FLOOR = 0.1  # of the learning rate at the end
CLIP = 1.0  # norm the gradient is cut to
VALIDATION_WINDOWS = 32
VALIDATION_BATCH = 8


@dataclass(frozen=True)
class LanguageRun:
    """What a training gave, in nats per token.

    losses:  of each step's batch, before the step.
    windows: mean loss of each held-out window after the last step; the same windows for every model and seed.
    curve:   (steps done, mean loss of a few held-out windows) on the way and at the end; empty with one check.
    """

    losses: tuple[float, ...]
    windows: tuple[float, ...]
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def held_out(self) -> float:
        return math.fsum(self.windows) / len(self.windows)


def train_language(
    model: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    steps: int,
    batch: int,
    length: int,
    lr: float = 1e-3,
    seed: int = 0,
    windows: int = VALIDATION_WINDOWS,
    checks: int = 1,
    note: Callable[[str, float], None] | None = None,
) -> LanguageRun:
    """Train `model` in place to predict the next token, then measure it on held-out windows.

    AdamW with decay on matrices only, linear warm-up and cosine to a tenth of `lr`, gradients cut to norm 1. Batches
    follow from `seed` alone: every model trained with it sees the very same tokens in the same order.

    Parameters
    ----------
    model:
        Called as ``model(tokens_BT, targets_BT) -> (logits, loss)``.
    train, validation:
        Vectors of token numbers, any integer type.
    checks:
        How often held-out loss is looked at, evenly, the last time at the end; on the way on at most eight windows.
        Looking changes nothing: the same losses with any number of checks.
    note:
        Told ``(text, share done)`` now and then.

    Raises
    ------
    InputError
        Texts shorter than a window, or steps, batch or length below 1.
    """
    _check(train, validation, steps=steps, batch=batch, length=length, windows=windows)
    device = next(model.parameters()).device
    optimizer = language_optimizer(model, lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    looks = set(torch.linspace(0, steps, checks + 1).long()[1:].tolist()) if checks > 1 else set()
    model.train()
    for step, (inputs, targets) in enumerate(batches(train, steps=steps, batch=batch, length=length, seed=seed), 1):
        losses.append(language_step(model, optimizer, inputs.to(device), targets.to(device)).item())
        schedule.step()
        if step in looks:
            some = held_out_losses(model, validation, length=length, windows=min(windows, VALIDATION_BATCH))
            curve.append((step, math.fsum(some) / len(some)))
            model.train()
        if note is not None and step % 10 == 0:
            note(f"step {step} of {steps}, loss {losses[-1]:.2f}", step / steps)
    final = held_out_losses(model, validation, length=length, windows=windows)
    return LanguageRun(tuple(losses), tuple(final), tuple(curve))


def language_optimizer(model: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(_decayed(model), lr=lr, betas=BETAS, fused=fused)


def language_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """One training step, gradients cut to norm 1; the loss before it."""
    _, loss = model(inputs_BT, targets_BT)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    before: Tensor = loss.detach()
    return before


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at `step`: up in a line over the first tenth, down along a cosine to a tenth."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def batches(text: Tensor, *, steps: int, batch: int, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets (batch, length) from random places of `text`, drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(text) - length, (batch,), generator=generator)
        yield windows_at(text, starts, length)


def windows_at(text: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The `length` tokens from each start on, and the same moved one on."""
    cut = text[starts[:, None] + torch.arange(length + 1)].long()
    return cut[:, :-1], cut[:, 1:]


@torch.no_grad()
def held_out_losses(model: nn.Module, text: Tensor, *, length: int, windows: int = VALIDATION_WINDOWS) -> list[float]:
    """Mean loss of each of `windows` windows spread evenly over `text` (fewer where they would overlap)."""
    device = next(model.parameters()).device
    windows = max(1, min(windows, (len(text) - 1) // length))
    starts = torch.linspace(0, len(text) - length - 1, windows, dtype=torch.float64).long()
    model.eval()
    losses: list[float] = []
    for some in torch.split(starts, VALIDATION_BATCH):
        inputs, targets = (part.to(device) for part in windows_at(text, some, length))
        logits_BTV = model(inputs)
        each = nn.functional.cross_entropy(logits_BTV.flatten(0, 1).double(), targets.flatten(), reduction="none")
        losses += each.view(len(some), length).mean(1).tolist()
    return losses


def _decayed(model: nn.Module) -> list[dict[str, object]]:
    """Matrices decay; biases and norms do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def _check(train: Tensor, validation: Tensor, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name} {value}", expected=f"{name} ≥ 1", cure=f"raise {name}")
    for name, text in (("training", train), ("held-out", validation)):
        if text.dim() != 1 or len(text) < numbers["length"] + 1:
            raise InputError(
                f"a {name} text of shape {tuple(text.shape)}",
                expected=f"a vector of at least {numbers['length'] + 1} tokens",
                cure="give more text, or a smaller length",
            )
