"""Training recipes as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deadweight.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained: AdamW, warm-up, then a cosine to zero.

    epochs, warmup_epochs:  the warm-up is part of the epochs.
    batch_size:             images a step, over all processes.
    drop_path:              rate of the last block; the rates rise linearly from 0 over depth.
    mixup, cutmix:          alphas of their Beta distributions; 0 is off.
    random_erasing:         share of images of which a rectangle is replaced by noise.
    ema_decay:              of a moving average of the weights, evaluated beside them; None is off.
    seed:                   everything random while training follows from it and the epoch.
    """

    epochs: int = 300
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    drop_path: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.1
    random_erasing: float = 0.0
    ema_decay: float | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        positive: dict[str, float] = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        for name, value in positive.items():
            if not value > 0:
                raise InputError(f"{name} {value}", expected="a positive number")
        for name in ("drop_path", "label_smoothing", "random_erasing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", expected="a share in [0, 1)")
        for name in ("weight_decay", "mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"{self.warmup_epochs} warm-up epochs of {self.epochs}", expected="fewer than there are epochs"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"ema_decay {self.ema_decay}", expected="between 0 and 1, or None")

    @classmethod
    def paper(cls, **changes: Any) -> Recipe:
        """arXiv 2512.01059 for ViT-B/16 on ImageNet-1K.

        RandAugment (``rand-m9-mstd0.5-inc1``) and its three augmentation repeats act on pictures, before they are
        tensors: they belong to the data's transform and are not part of this value.
        """
        values: dict[str, Any] = {
            "drop_path": 0.1,
            "mixup": 0.8,
            "cutmix": 1.0,
            "random_erasing": 0.25,
            "ema_decay": 0.9998,
        }
        return cls(**values | changes)

    @classmethod
    def mini(cls, **changes: Any) -> Recipe:
        """For a few thousand small images on a CPU: seconds a run (ours)."""
        values: dict[str, Any] = {"epochs": 9, "batch_size": 64, "lr": 2e-3, "warmup_epochs": 1}
        return cls(**values | changes)
