"""What training leaves behind, epoch by epoch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Curves:
    """One value an epoch; accuracies are shares of the held-out images, losses nats. `ema_…` is empty without one."""

    train_loss: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    top5: list[float] = field(default_factory=list)
    ema_loss: list[float] = field(default_factory=list)
    ema_top1: list[float] = field(default_factory=list)
    ema_top5: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)

    @property
    def peak_epoch(self) -> int:
        """The first epoch of the best top-1, counted from 1."""
        return 1 + self.top1.index(max(self.top1))

    @property
    def degradation(self) -> float:
        """Δ(peak→final) of arXiv 2512.01059: best top-1 minus the last."""
        return max(self.top1) - self.top1[-1]

    def latest(self) -> dict[str, float]:
        """The values of the last epoch by name."""
        return {name: values[-1] for name, values in asdict(self).items() if values}

    def as_json(self) -> dict[str, list[float]]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, list[float]]) -> Curves:
        return cls(**values)

    def table(self) -> DataFrame:
        """A row for each epoch, counted from 1."""
        import pandas as pd

        columns: dict[str, Any] = {name: values for name, values in self.as_json().items() if values}
        return pd.DataFrame({"epoch": range(1, len(self.top1) + 1), **columns})

    def write(self, path: str | os.PathLike[str]) -> None:
        """The table as a parquet file; it takes the place of an older one whole."""
        target = Path(path)
        fresh = target.with_name(f".{target.name}.writing")
        self.table().to_parquet(fresh, index=False)
        os.replace(fresh, target)
