"""What else runs on a device: scorer, profile, surgeries, compress, a training step, the average, the scaled loss."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import deadweight as dw
from deadweight.attention import mechanism
from deadweight.data import ImageData
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.training.language import language_optimizer, language_step
from gpu_sections.nearness import near, precisions
from gpu_sections.plan import MISSING, OK, WRONG, Emit, Plan, attempt, row
from gpu_sections.small_models import language, pictures, vision

PROMPTS = ("The sky is", "The sky is blue and the grass is", "Two and two are")
ANSWERS = (" green", " blue", " four")


def scorer(plan: Plan, emit: Emit) -> None:
    lm = language()
    wanted = dw.score_labels(lm, PROMPTS, ANSWERS)
    for told, dtype, bound in precisions(plan):
        with attempt(emit, f"scorer, {told}"):
            there = dw.LanguageModel(copy.deepcopy(lm.model).to(plan.device, dtype), lm.tokenizer, lm.name, 8192)
            emit(near(f"scorer, {told}", [dw.score_labels(there, PROMPTS, ANSWERS)], [wanted], bound))


def profile(plan: Plan, emit: Emit) -> None:
    """In float32 every column, and the worst is named; in 16 bits the median column: some are counts of 64 answers."""
    model, batches = vision(), [(pictures(32, seed), torch.arange(32) % 4) for seed in range(2)]
    wanted = dw.profile(model, batches).table()
    for told, dtype, bound in precisions(plan):
        with attempt(emit, f"profile, {told}"):
            found = dw.profile(copy.deepcopy(model).to(plan.device, dtype), batches).table()
            off = {name: _apart(found[name], wanted[name]) for name in wanted.select_dtypes("number")}
            order = sorted(off, key=lambda name: off[name])
            judged = order[-1 if dtype.itemsize == 4 else len(order) // 2]
            limit = 50 * bound if dtype.itemsize == 4 else bound  # columns divide small differences of means
            status = OK if off[judged] <= limit else WRONG
            emit(row(f"profile, {told}", status, error=off[judged], bound=limit, column=judged, columns=len(off)))


def _apart(found: pd.Series[float], wanted: pd.Series[float]) -> float:
    both = found.notna() & wanted.notna()
    if bool((found.notna() != wanted.notna()).any()):
        return float("inf")
    size = float(wanted[both].abs().max()) if both.any() else 0.0
    return float((found[both] - wanted[both]).abs().max()) / size if size else 0.0


SURGERIES: dict[str, Callable[[nn.Module, list[Tensor]], nn.Module]] = {
    "group_mlps": lambda model, batches: dw.group_mlps(model, scale=2**-0.5),
    "group_mlps, refitted": lambda model, batches: dw.group_mlps(model, merge="union", refit="stream", batches=batches),
    "shallow_mlps": lambda model, batches: dw.shallow_mlps(model, keep=0.5),
    "drop_blocks": lambda model, batches: dw.drop_blocks(model, [1]),
    "scale_positions": lambda model, batches: dw.scale_positions(model, 0.5),
    "early_exit": lambda model, batches: dw.early_exit(model, 2, readout=None),
    "swap_attention": lambda model, batches: dw.swap_attention(model, "sliding_window", window=4),
}


def surgeries(plan: Plan, emit: Emit) -> None:
    model, images = vision(), pictures(64)
    with torch.no_grad():
        for name, cut in SURGERIES.items():
            with attempt(emit, name):
                wanted = cut(model, [images])(images)
                there = copy.deepcopy(model).float().to(plan.device)
                given = images.to(plan.device, torch.float32)
                emit(near(name, [cut(there, [given])(given)], [wanted], 5e-3 if "refitted" in name else 1e-4))


def compress(plan: Plan, emit: Emit) -> None:
    """The plan it finds, and what the smaller model says."""
    model, images = vision(2 if plan.rehearsal else 6), pictures(48 if plan.rehearsal else 96)
    wanted = dw.compress(model, [images], parameters=0.7)
    there, given = copy.deepcopy(model).float().to(plan.device), images.to(plan.device, torch.float32)
    found = dw.compress(there, [given], parameters=0.7)
    sizes = [sum(weight.numel() for weight in one.parameters()) for one in (found, wanted)]
    if sizes[0] != sizes[1]:
        why = f"another plan: {sizes[0]} parameters, not {sizes[1]}"
        emit(row("compress", WRONG, why, reached=found.compression.reached))
        return
    with torch.no_grad():
        emit(near("compress", [found(given)], [wanted(images)], 1e-2, parameters=sizes[0]))


def language_steps(plan: Plan, emit: Emit) -> None:
    """Five steps of a GPT-2: the losses, which feel every gradient and update before them."""
    torch.manual_seed(0)
    exact = GPT2(GPT2Config(64, 32, 32, 2, 2), lambda _: mechanism("sdpa", 32, 2)).double()
    ids = torch.randint(64, (5, 4, 33), generator=torch.Generator().manual_seed(0))

    def losses(model: nn.Module) -> Tensor:
        optimizer = language_optimizer(model, lr=1e-2)
        where = next(model.parameters()).device
        steps = [language_step(model, optimizer, one[:, :-1].to(where), one[:, 1:].to(where)) for one in ids]
        return torch.stack(steps)

    first = copy.deepcopy(exact)
    wanted = losses(exact)
    for told, dtype, bound in precisions(plan):
        with attempt(emit, f"training step, {told}"):
            found = losses(copy.deepcopy(first).to(plan.device, dtype))
            emit(near(f"training step, {told}", [found], [wanted], bound))


class Labelled(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = super().__getitem__(index)
        return image, int(label)


class InFloat64(nn.Module):
    """A model in float64 among pictures that come in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x.double())
        return y


def classifier_training(plan: Plan, emit: Emit) -> None:
    """Ten steps with an average of the weights; in float32, bfloat16, and float16 with its loss scaled."""
    images = pictures(32).float()
    labelled = Labelled(images, torch.arange(32) % 10)
    data = ImageData("drawn", labelled, labelled, tuple("0123456789"), 1, (8, 8), "drawn")
    values = {"epochs": 5, "batch_size": 16, "warmup_epochs": 1, "ema_decay": 0.9, "clip_grad": 1.0, "lr": 1e-3}

    def curves(model: nn.Module, device: str, precision: str) -> tuple[Tensor, Tensor]:
        told = dw.train(model.train(), data, dw.Recipe(**values, mixed_precision=precision), device=device)
        return torch.tensor(told.train_loss), torch.tensor(told.ema_loss)

    wanted = curves(InFloat64(vision(2)), "cpu", "no")
    for name, precision, bound in (
        ("float32", "no", 1e-4), ("bfloat16", "bf16", 3e-2), ("float16, scaled loss", "fp16", 1e-2),
    ):  # fmt: skip
        with attempt(emit, f"classifier, {name}"):
            try:
                found = curves(vision(2).float(), plan.device, precision)
            except dw.InputError as refused:
                emit(row(f"classifier, {name}", MISSING, str(refused)))
                continue
            for part, one, two in zip(("losses", "losses of the average"), found, wanted, strict=True):
                emit(near(f"classifier, {name}: {part}", [one], [two], bound))


PARTS: dict[str, Callable[[Plan, Emit], None]] = {
    "scorer": scorer,
    "profile": profile,
    "surgeries": surgeries,
    "compress": compress,
    "training step": language_steps,
    "classifier": classifier_training,
}
