"""Training recipes as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deadweight.errors import InputError

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained: AdamW, warm-up, then a cosine to zero.

    epochs, warmup_epochs:  the warm-up is part of the epochs.
    batch_size:             images per update of the weights, over all processes and accumulated steps.
    accumulation:           parts each process computes its share of a batch in, to save memory.
    lr, warmup_lr:          the highest rate, and the one the warm-up starts from (None: a thousandth of it).
    clip_grad:              norm the gradient is cut to; None is off.
    drop_path:              rate of the last block; the rates rise linearly from 0 over depth.
    augment:                timm's RandAugment policy for each picture, e.g. ``rand-m9-mstd0.5-inc1``; None is off.
    repeats:                differently augmented copies of a picture in an epoch, which then sees that much fewer.
    crop:                   smallest and largest share of a picture's area that is cut out and resized; None is off.
    flip:                   share of pictures that are mirrored.
    mixup, cutmix:          alphas of their Beta distributions; 0 is off.
    random_erasing:         share of images of which a rectangle is replaced by noise.
    ema_decay:              of a moving average of the weights, evaluated beside them; None is off.
    mixed_precision:        products in ``bf16`` or ``fp16`` (its loss scaled), weights in float32; ``no`` is off.
    channels_last:          images and convolutions in that memory format.
    seed:                   everything random while training follows from it and the step.

    >>> recipe = Recipe.mini(epochs=2, seed=0)
    >>> recipe.epochs, recipe.seed, Recipe.paper().epochs
    (2, 0, 300)
    """

    epochs: int = 300
    batch_size: int = 1024
    accumulation: int = 1
    lr: float = 1e-3
    warmup_lr: float | None = None
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    clip_grad: float | None = None
    drop_path: float = 0.0
    augment: str | None = None
    repeats: int = 1
    crop: tuple[float, float] | None = None
    flip: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.1
    random_erasing: float = 0.0
    ema_decay: float | None = None
    mixed_precision: Precision = "no"
    channels_last: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))  # a list where it comes from YAML
        for name in ("epochs", "batch_size", "lr", "accumulation", "repeats", "clip_grad", "warmup_lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} {value}", expected="a positive number")
        for name in ("drop_path", "label_smoothing", "random_erasing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", expected="a share in [0, 1)")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip {self.flip}", expected="a share in [0, 1]")
        for name in ("weight_decay", "mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"{self.warmup_epochs} warm-up epochs of {self.epochs}", expected="fewer than there are epochs"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"ema_decay {self.ema_decay}", expected="between 0 and 1, or None")
        if self.crop is not None and not (len(self.crop) == 2 and 0 < self.crop[0] <= self.crop[1] <= 1):
            raise InputError(f"crop {self.crop}", expected="two shares, 0 < smallest ≤ largest ≤ 1, or None")
        if self.augment is not None and not self.augment.startswith("rand"):
            raise InputError(
                f"augment {self.augment!r}", expected="a RandAugment policy of timm", cure="rand-m9-mstd0.5-inc1"
            )
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InputError(f"mixed_precision {self.mixed_precision!r}", expected="no, bf16 or fp16")

    @property
    def changes_pictures(self) -> bool:
        """Whether anything happens to a picture before it is a tensor."""
        return self.augment is not None or self.crop is not None or self.flip > 0

    @classmethod
    def paper(cls, **changes: Any) -> Recipe:
        """arXiv 2512.01059 for ViT-B/16 on ImageNet-1K: 1024 images per update, in two parts.

        The paper names mixed precision and not the format: bf16 here, which CPUs have too. What it leaves to timm's
        defaults is theirs: label smoothing 0.1, crops of 8 to 100 % of the area, mirroring, warm-up from 1e-5.
        """
        values: dict[str, Any] = {
            "accumulation": 2,
            "warmup_lr": 1e-5,
            "drop_path": 0.1,
            "augment": "rand-m9-mstd0.5-inc1",
            "repeats": 3,
            "crop": (0.08, 1.0),
            "flip": 0.5,
            "mixup": 0.8,
            "cutmix": 1.0,
            "random_erasing": 0.25,
            "ema_decay": 0.9998,
            "mixed_precision": "bf16",
            "channels_last": True,
        }
        return cls(**values | changes)

    @classmethod
    def mini(cls, **changes: Any) -> Recipe:
        """For a few thousand small images on a CPU: seconds a run (ours)."""
        values: dict[str, Any] = {"epochs": 9, "batch_size": 64, "lr": 2e-3, "warmup_epochs": 1}
        return cls(**values | changes)
