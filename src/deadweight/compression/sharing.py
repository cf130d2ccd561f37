"""What two neighbouring blocks would miss if they shared one MLP with an output layer fitted to both (ours)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deadweight.compression.rows import Rows, hidden_of, output_layer

MERGES = ("first", "union")
FITTED, JUDGED = 512, 128  # tokens of each block: fewer than units will do to tell whether it is worth a thought


@dataclass(frozen=True)
class Member:
    """A block that could share: its MLP, that one's output layer, its hidden units in the order they are kept, and
    tokens to fit to and to judge by."""

    mlp: nn.Module
    down: nn.Module
    order: Tensor
    fitted: Rows
    judged: Rows


def missed_by_sharing(one: Member, two: Member, merge: str, ridge: float) -> tuple[float, float]:
    """The held-out error of either block, on the scale of a site's own errors at a width.

    ``first``: both use the first one's units; ``union``: of each its best half, side by side, as
    ``group_mlps(merge=…, refit=…)`` makes them. The output layer is pulled towards what those units wrote before.
    Solved in the tokens, which are fewer than the units.
    """
    learn = [member.fitted.leading(FITTED) for member in (one, two)]
    units, start_ID = _merged(one, two, merge)
    h_NI = torch.cat([units(rows.read) for rows in learn])
    missing_ND = torch.cat([rows.written for rows in learn]) - h_NI @ start_ID
    root_N1 = torch.cat([rows.weight for rows in learn]).sqrt()[:, None]
    centre = (root_N1.square() * missing_ND).sum(0) / root_N1.square().sum().clamp_min(1e-30)
    h, r = h_NI * root_N1, (missing_ND - centre) * root_N1
    kernel = (h @ h.T).double()
    kernel.diagonal().add_(max(ridge * float(h.square().sum()) / h.shape[1], torch.finfo(torch.float64).tiny))
    layer_ID = start_ID + h.T @ torch.linalg.solve(kernel, r.double()).float()

    def missed(rows: Rows) -> float:
        left = units(rows.read) @ layer_ID + centre - rows.written
        return float((rows.weight * left.square().sum(1)).sum()) / max(float((rows.weight > 0).sum()), 1.0)

    return missed(one.judged.leading(JUDGED)), missed(two.judged.leading(JUDGED))


def _merged(one: Member, two: Member, merge: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """From tokens to the hidden units of the shared MLP, and what these wrote before (I, D), without biases."""
    size = len(one.order)
    layers = [output_layer(member.down)[:size] for member in (one, two)]
    if merge == "first":
        return lambda read_ND: hidden_of(one.mlp, one.down, read_ND), layers[0]
    kept = [member.order[:count].sort().values for member, count in ((one, size - size // 2), (two, size // 2))]

    def union(read_ND: Tensor) -> Tensor:
        parts = [hidden_of(m.mlp, m.down, read_ND)[:, units] for m, units in zip((one, two), kept, strict=True)]
        return torch.cat(parts, dim=1)

    return union, torch.cat([layer[units] for layer, units in zip(layers, kept, strict=True)])
