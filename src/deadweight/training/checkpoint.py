"""Checkpoints at any step: weights as safetensors, the optimizer's state as plain tensors."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deadweight.errors import MachineError
from deadweight.training.curves import Curves

_PREFIX = "step-"


@dataclass
class Progress:
    """How far a run is: updates done, losses of the updates of the epoch under way, curves of the epochs done."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)


@dataclass(frozen=True)
class State:
    """What a checkpoint holds beside the progress. `scaler`: of fp16's loss, None without."""

    models: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    scaler: Any = None

    def finite(self) -> bool:
        """Whether every weight is a number: a step whose loss was finite may still have spoilt them."""
        return all(bool(tensor.isfinite().all()) for model in self.models.values() for _, tensor in _unique(model))


def write_checkpoint(folder: Path, state: State, progress: Progress, *, identity: str) -> None:
    """Write the state after `progress.step` updates; older checkpoints go once it stands.

    `identity` says what is trained on what: a checkpoint of anything else is not resumed from.
    """
    target = folder / f"{_PREFIX}{progress.step:09d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        save_file(_weights(state.models), fresh / "weights.safetensors")
        scaler = None if state.scaler is None else state.scaler.state_dict()
        torch.save({"optimizer": state.optimizer.state_dict(), "scaler": scaler}, fresh / "optimizer.pt")
        told = {
            "identity": identity,
            "step": progress.step,
            "losses": progress.losses,
            "curves": progress.curves.as_json(),
        }
        (fresh / "progress.json").write_text(json.dumps(told), encoding="utf-8")
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)  # of another identity, else it would have been resumed from
        os.replace(fresh, target)
        for old in folder.iterdir():
            if old != target:
                shutil.rmtree(old)
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise MachineError(
            f"the checkpoint in {str(folder)!r} cannot be written: {problem}",
            expected="a folder that can be written, with room for three times the weights",
        ) from problem


def read_checkpoint(folder: Path, state: State, *, identity: str) -> Progress:
    """Restore the latest checkpoint of `identity`; an empty progress where there is none."""
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        told: dict[str, Any] = json.loads((path / "progress.json").read_text(encoding="utf-8"))
        if told["identity"] != identity:
            continue
        weights = load_file(path / "weights.safetensors")
        for name, model in state.models.items():
            with torch.no_grad():
                for key, tensor in _unique(model):
                    tensor.copy_(weights[f"{name}.{key}"])
        kept = torch.load(path / "optimizer.pt", weights_only=True)
        state.optimizer.load_state_dict(kept["optimizer"])
        if state.scaler is not None and kept["scaler"] is not None:
            state.scaler.load_state_dict(kept["scaler"])
        return Progress(int(told["step"]), told["losses"], Curves.from_json(told["curves"]))
    return Progress()


def remove_checkpoints(folder: Path) -> None:
    """Called when the trained model itself is safe."""
    shutil.rmtree(folder, ignore_errors=True)


def _unique(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, a shared tensor once."""
    return [*model.named_parameters(), *model.named_buffers()]


def _weights(models: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name, model in models.items()
        for key, tensor in _unique(model)
    }
