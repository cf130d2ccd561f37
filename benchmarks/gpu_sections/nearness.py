"""How far a result is from what it should be, and how far it may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpu_sections.plan import OK, WRONG, Plan, Row, row

GRADIENTS = 3.0  # times an output's bound: a gradient goes through the products twice


def precisions(plan: Plan) -> list[tuple[str, torch.dtype, float]]:
    """Name, type and bound of each. float32's is some hundred roundings, bfloat16's what 8 bits leave."""
    return [("float32", torch.float32, 1e-4), ("bfloat16", torch.bfloat16, 6e-2)]


def error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """‖found − wanted‖ / ‖wanted‖ over all of them together; infinite where something is not finite."""
    pairs = [(one.detach().cpu().double(), two.detach().cpu().double()) for one, two in zip(found, wanted, strict=True)]
    if not all(bool(one.isfinite().all()) for one, _ in pairs):
        return float("inf")
    off = sum(float((one - two).square().sum()) for one, two in pairs)
    size = sum(float(two.square().sum()) for _, two in pairs)
    return float((off / size) ** 0.5) if size else float(off**0.5)


def near(
    name: str,
    found: Sequence[Tensor],
    wanted: Sequence[Tensor],
    bound: float,
    *,
    rest: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    **values: object,
) -> Row:
    """The row of a comparison; `rest` are gradients, which may be further off."""
    off = error(found, wanted)
    fine, told = off <= bound, {"error": off, "bound": bound}
    if rest is not None:
        told["gradient_error"] = error(*rest)
        fine = fine and told["gradient_error"] <= GRADIENTS * bound
    return row(name, OK if fine else WRONG, **told, **values)
