"""Training a ViT on pictures that lie in memory: ours over a loop of timm's own parts."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

import deadweight as dw
from deadweight.data import ImageData
from gpu_sections.correct_parts import Labelled
from gpu_sections.plan import Emit, Plan, attempt
from gpu_sections.turns import ratio_row

DECAY = 0.9998


def training(plan: Plan, emit: Emit) -> None:
    name, size, count, batch, epochs = "vit_small_patch16_224", 224, 1024, 128, 4
    if plan.rehearsal:
        name, size, count, batch, epochs = "test_vit", 160, 8, 4, 1
    draw = torch.Generator().manual_seed(0)
    held = [
        Labelled(torch.rand(many, 3, size, size, generator=draw), torch.arange(many) % 10) for many in (count, batch)
    ]
    data = ImageData("drawn", *held, tuple("0123456789"), 3, (size, size), "drawn")
    for precision in ("no", "bf16"):
        with attempt(emit, f"training over timm's parts, {precision}"):
            recipe = dw.Recipe(
                epochs=epochs, warmup_epochs=0, batch_size=batch, mixup=0.8, cutmix=1.0, ema_decay=DECAY,
                mixed_precision=precision,
            )  # fmt: skip
            emit(
                ratio_row(
                    f"training over timm's parts, mixed precision {precision}",
                    lambda recipe=recipe: dw.train(fresh(name), data, recipe, device=plan.device),
                    lambda precision=precision: theirs(name, data, batch, epochs, precision, plan.device),
                    device=plan.device,
                    rounds=1 if plan.rehearsal else 2,
                    goal=1.1,
                    model=name,
                    images=count * epochs,
                )
            )


def fresh(name: str) -> torch.nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10)


def theirs(name: str, data: ImageData, batch: int, epochs: int, precision: str, device: str) -> None:
    """What timm's train.py does with these settings; the pictures wait on the device, as ours do."""
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3

    net = fresh(name).to(device)
    steps = len(data.train) // batch
    optimizer = create_optimizer_v2(net, opt="adamw", lr=1e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs, updates_per_epoch=steps)
    average, mixup = ModelEmaV3(net, decay=DECAY), Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=10)
    loss_of = SoftTargetCrossEntropy()
    images, labels = (x.to(device) for x in data.train.tensors)
    held = DataLoader(data.validation, batch_size=batch)
    number = 0
    for _ in range(epochs):
        net.train()
        for at in torch.randperm(len(images)).split(batch)[:steps]:
            pictures, targets = mixup(images[at.to(device)], labels[at.to(device)])
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
                loss = loss_of(net(pictures), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(net, step=number)
            number += 1
            scheduler.step_update(num_updates=number)
        for scored in (net.eval(), average.module.eval()):
            with torch.inference_mode():
                for pictures, _ in held:
                    scored(pictures.to(device)).argmax(1).sum().item()
