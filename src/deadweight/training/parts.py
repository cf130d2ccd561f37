"""What one training is made of: accelerate's engine, timm's parts, built once from a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData
from deadweight.data.images import Pictures
from deadweight.errors import InputError, MachineError
from deadweight.evaluation import logits_of
from deadweight.training.checkpoint import State
from deadweight.training.feed import Feed, check_labels
from deadweight.training.pictures import augmented
from deadweight.training.recipe import Recipe


def engine(
    recipe: Recipe,
    device: torch.device | str | None = None,
    *,
    trackers: Sequence[str] = (),
    tracker_folder: Path | None = None,
) -> Any:
    """accelerate's ``Accelerator`` for a recipe, on `device` (None: the machine's accelerator, else the CPU).

    Raises
    ------
    InputError
        A precision the device does not have, a tracker whose package is not installed.
    MachineError
        Fewer processes than were started: they would each train alone.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    there = [str(name) for name in get_available_trackers()]
    for name in trackers:
        if name not in there:
            known = name in [str(one) for one in LOGGER_TYPE_TO_CLASS]
            raise InputError(
                f"the tracker {name!r}" + (" is not installed" if known else ""),
                expected=f"one that accelerate finds here: {', '.join(there) or 'none'}",
                cure=f"pip install {name}" if known else "",
            )
    state: Any = AcceleratorState._shared_state
    if state and state.get("_mixed_precision") != recipe.mixed_precision:
        AcceleratorState._reset_state()  # accelerate keeps one precision a process; here recipes follow one another
    refused = InputError(
        f"mixed_precision {recipe.mixed_precision!r}", expected="a precision this device has", cure="bf16, or no"
    )
    try:
        accelerator = Accelerator(
            cpu=device is not None and torch.device(device).type == "cpu",
            mixed_precision=recipe.mixed_precision,
            gradient_accumulation_steps=recipe.accumulation,
            log_with=list(trackers) or None,
            project_dir=None if tracker_folder is None else str(tracker_folder),
        )
    except ValueError as problem:
        raise refused from problem
    if recipe.mixed_precision != "no" and not accelerator.native_amp:
        raise refused  # accelerate would train in float32 and not say so
    how = accelerator.distributed_type.value
    if how != "NO" and not how.startswith("MULTI_"):
        raise InputError(
            f"training under {how}",
            expected="one process, or several that each hold the whole model (DDP)",
            cure="to shard, write the loop and give fully_shard the units of deadweight.training.sharing_groups",
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise MachineError(
            f"{started} processes were started and accelerate sees {accelerator.num_processes}",
            expected="all of them in one group",
            cure="start them with torchrun --nproc-per-node N SCRIPT.py",
        )
    return accelerator


class Parts:
    """Model, optimizer, schedule, average, mixing and loss of one run.

    steps:  updates an epoch; images that do not fill a batch wait for the next epoch's order.
    micro:  images a process computes at a time.
    """

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, accelerator: Any, workers: int = 0) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        device: torch.device = accelerator.device
        self.accelerator = accelerator
        classes = _classes(model, data, device)
        self.memory = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        changed = augmented(data, recipe)
        self.train = Feed(data.train, device, augmented=changed, workers=workers, classes=classes)
        self.validation = Feed(data.validation, device, workers=workers, classes=classes)
        self.batch, self.micro = _sizes(recipe, len(self.train), accelerator.num_processes)
        self.steps = len(self.train) // self.batch
        plain = create_optimizer_v2(
            model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, fused=device.type in ("cpu", "cuda")
        )
        self.scheduler, _ = create_scheduler_v2(
            plain,
            sched="cosine",
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.lr / 1000 if recipe.warmup_lr is None else recipe.warmup_lr,
            step_on_epochs=False,
            updates_per_epoch=self.steps,
        )
        # without its buffers-as-state path, which visits a tensor once per name and so averages shared ones twice
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay, exclude_buffers=True) if recipe.ema_decay else None
        self.model, self.optimizer = accelerator.prepare(model, plain)
        self.mixup, self.erasing, self.loss = _targets(recipe, classes, self.micro, device)

    @property
    def state(self) -> State:
        """What a checkpoint must hold."""
        models = {"model": self.accelerator.unwrap_model(self.model)}
        if self.ema is not None:
            models["ema"] = self.ema.module
        return State(models, self.optimizer, self.accelerator.scaler)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images with rectangles erased and pairs mixed, and the targets that follow."""
        if self.erasing is not None:
            images = self.erasing(images)
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        return images.contiguous(memory_format=self.memory), labels


def set_drop_path(model: nn.Module, rate: float) -> None:
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


@torch.inference_mode()
def _classes(model: nn.Module, data: ImageData, device: torch.device) -> int:
    """How many outputs the model has; every label must have one."""
    image, _ = data.validation[0]
    was = model.training
    classes = int(logits_of(model.eval()(image[None].to(device))).shape[-1])
    model.train(was)
    for part in (data.train, data.validation):
        if isinstance(part, Pictures):
            labels = [part.labels[at] for at in part.indices]
            check_labels(min(labels), max(labels), classes)
    return classes


def _sizes(recipe: Recipe, images: int, processes: int) -> tuple[int, int]:
    """(images per update, images a process computes at a time)."""
    pieces = processes * recipe.accumulation
    batch = min(recipe.batch_size, images)
    if batch < recipe.batch_size:
        batch -= batch % pieces
    if batch % pieces or not batch:
        raise InputError(
            f"a batch of {min(recipe.batch_size, images)} images for {processes} processes × "
            f"{recipe.accumulation} accumulated parts",
            expected=f"a multiple of {pieces}",
            cure="change batch_size, accumulation or the number of processes",
        )
    micro = batch // pieces
    if micro % 2 and (recipe.mixup > 0 or recipe.cutmix > 0):
        raise InputError(
            f"{micro} images at a time with mixup, which mixes pairs", expected="an even number", cure="batch_size"
        )
    return batch, micro


def _targets(recipe: Recipe, classes: int, micro: int, device: torch.device) -> tuple[Any, Any, nn.Module]:
    """timm's mixing and erasing (None where the recipe has none), and the loss that fits."""
    from timm.data import Mixup
    from timm.data.random_erasing import RandomErasing
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    erasing = RandomErasing(recipe.random_erasing, mode="pixel", device=device.type) if recipe.random_erasing else None
    if recipe.mixup > 0 or recipe.cutmix > 0:
        mixup = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )
        return mixup, erasing, SoftTargetCrossEntropy()
    if recipe.label_smoothing > 0:
        return None, erasing, LabelSmoothingCrossEntropy(recipe.label_smoothing)
    return None, erasing, nn.CrossEntropyLoss()
