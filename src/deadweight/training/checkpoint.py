"""Checkpoints at epoch boundaries: weights as safetensors, the optimizer's state as plain tensors."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deadweight.errors import MachineError
from deadweight.training.curves import Curves

_PREFIX = "epoch-"


def write_checkpoint(
    folder: Path,
    epoch: int,
    *,
    identity: str,
    curves: Curves,
    models: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state after `epoch` epochs; older checkpoints go once it stands.

    `identity` says what is trained on what: a checkpoint of anything else is not resumed from.
    """
    target = folder / f"{_PREFIX}{epoch:05d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        save_file(_weights(models), fresh / "weights.safetensors")
        torch.save(optimizer.state_dict(), fresh / "optimizer.pt")
        progress = {"identity": identity, "epoch": epoch, "curves": curves.as_json()}
        (fresh / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
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


def read_checkpoint(
    folder: Path, *, identity: str, models: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[int, Curves]:
    """Restore the latest checkpoint of `identity`: (epochs done, curves); (0, empty) where there is none."""
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        progress: dict[str, Any] = json.loads((path / "progress.json").read_text(encoding="utf-8"))
        if progress["identity"] != identity:
            continue
        weights = load_file(path / "weights.safetensors")
        for name, model in models.items():
            own = dict(_unique(model))
            with torch.no_grad():
                for key, tensor in own.items():
                    tensor.copy_(weights[f"{name}.{key}"])
        optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
        return int(progress["epoch"]), Curves.from_json(progress["curves"])
    return 0, Curves()


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
