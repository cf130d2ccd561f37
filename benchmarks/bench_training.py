"""Training images per second: ours against a loop of timm's own parts as its train.py writes it; grouped against whole.

Both train a ViT-Ti/16 at 224 pixels for one pass over the same JPEG files with the same settings: RandAugment, crops,
mirroring, mixup and cutmix, random erasing, drop-path, label smoothing, an average of the weights; no reading ahead.
RandAugment's magnitude is 7, for timm's Posterize breaks with recent Pillow where a draw reaches 10.
"""

import dataclasses
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from side_by_side import ratio, say, where
from sklearn.datasets import load_sample_images
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy

import deadweight as dw
import deadweight.timm  # registers the names

NAME, BATCH, IMAGES, POLICY = "vit_tiny_patch16_224", 16, 64, "rand-m7-mstd0.5-inc1"
RECIPE = dataclasses.replace(
    dw.Recipe.paper(epochs=1, warmup_epochs=0, batch_size=BATCH, augment=POLICY),
    accumulation=1, repeats=1, mixed_precision="no", channels_last=False,
)  # fmt: skip


def pictures(folder: Path) -> None:
    """Cuts of scikit-learn's two photographs, 320 × 240, as JPEG files in class folders."""
    for number, photograph in enumerate(load_sample_images().images):
        whole = Image.fromarray(photograph)
        for part, count in (("train", IMAGES // 2), ("val", 1)):
            target = folder / part / str(number)
            target.mkdir(parents=True)
            for place in range(count):
                left, top = 10 * (place % 16), 30 * (place // 16)
                whole.crop((left, top, left + 320, top + 240)).save(target / f"{place}.jpg", quality=90)


def model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=2)


def ours(folder: Path, name: str = NAME) -> None:
    net = model(name)
    data = dw.load_images(f"folder:{folder}", transform=dw.transform(net))
    dw.train(net, data, RECIPE, device="cpu")


def theirs(folder: Path) -> None:
    """What timm's train.py does in one epoch on a CPU with these settings."""
    net = timm.create_model(NAME, num_classes=2, drop_path_rate=0.1)
    given = {
        "input_size": (3, 224, 224), "batch_size": BATCH, "use_prefetcher": False, "num_workers": 0,
        "mean": (0.5,) * 3, "std": (0.5,) * 3, "device": torch.device("cpu"), "persistent_workers": False,
    }  # fmt: skip
    loader = create_loader(
        create_dataset("", root=str(folder), split="train", is_training=True), is_training=True, re_prob=0.25,
        re_mode="pixel", auto_augment=POLICY, interpolation="random", **given,
    )  # fmt: skip
    held_out = create_loader(create_dataset("", root=str(folder), split="val"), crop_pct=0.9, **given)
    optimizer = create_optimizer_v2(net, opt="adamw", lr=1e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=1, updates_per_epoch=len(loader))
    average, mixup = ModelEmaV3(net, decay=0.9998), Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=2)
    loss_of, losses = SoftTargetCrossEntropy(), AverageMeter()
    net.train()
    for step, (images, labels) in enumerate(loader):
        images, targets = mixup(images, labels)
        loss = loss_of(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(net, step=step)
        losses.update(loss.item(), len(images))
        scheduler.step_update(num_updates=step + 1, metric=losses.avg)
    for scored in (net.eval(), average.module):
        with torch.inference_mode():
            for images, labels in held_out:
                accuracy(scored(images), labels, topk=(1, 2))


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures(folder)
        print(where())
        found = ratio(lambda: ours(folder), lambda: theirs(folder), rounds=5, warmup=1)
        say(f"one epoch of {IMAGES} images, ours", found, "timm's loop")
        print(f"  {IMAGES / found['ours']:.1f} images/s against {IMAGES / found['theirs']:.1f}")
        for variant in ("grouped", "shallow"):
            found = ratio(lambda v=variant: ours(folder, f"{NAME}_{v}"), lambda: ours(folder), rounds=3, warmup=0)
            say(f"training the {variant} model", found, "the whole one")


if __name__ == "__main__":
    main()
