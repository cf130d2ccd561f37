"""The two cuts that are tried on a model somebody brings: a third of its MLPs' parameters, refitted, not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from deadweight.errors import SurgeryError
from deadweight.surgery import group_mlps, shallow_mlps

WHAT = {
    "grouped": "Letting every two neighbouring blocks share one MLP of both's best units",
    "shallow": "Keeping the two thirds of each MLP's units that do most",
}
REMEDY = "Cut the model and keep what it knew: refitted in closed form, no labels, no training."


def _narrower(model: nn.Module, **options: Any) -> nn.Module:
    return shallow_mlps(model, 2 / 3, by="activation", **options)


def _shared(model: nn.Module, **options: Any) -> nn.Module:
    return group_mlps(model, 2, merge="union", **options)


SURGERIES: dict[str, Callable[..., nn.Module]] = {"shallow": _narrower, "grouped": _shared}


def refitted(surgery: Callable[..., nn.Module], intact: nn.Module, batches: list[Tensor]) -> tuple[nn.Module, str]:
    """Towards the stream, or where a block does not add to it as it is, towards each layer's own output."""
    try:
        return surgery(intact, refit="stream", batches=batches), "stream"
    except SurgeryError:
        return surgery(intact, refit="layer", batches=batches), "layer"


__all__ = ["REMEDY", "SURGERIES", "WHAT", "refitted"]
