"""What two neighbouring blocks would miss if they shared one MLP with an output layer fitted to both (ours)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deadweight.compression.rows import Rows, hidden_of

MERGES = ("first", "union")
FITTED, JUDGED = 1024, 256  # tokens of each block: fewer than units will do to tell whether it is worth a thought


def missed_by_sharing(
    mlps: tuple[nn.Module, nn.Module],
    downs: tuple[nn.Module, nn.Module],
    orders: tuple[Tensor, Tensor],
    fitted: tuple[Rows, Rows],
    judged: tuple[Rows, Rows],
    merge: str,
    ridge: float,
) -> tuple[float, float]:
    """The held-out error of either block, on the scale of a site's own errors at a width.

    ``first``: both use the first one's units; ``union``: of each its best half, side by side, as
    ``group_mlps(merge=…, refit=…)`` makes them. Solved in the tokens, which are fewer than the units.
    """
    learn = [one.leading(FITTED) for one in fitted]
    check = [one.leading(JUDGED) for one in judged]
    units = _units(mlps, downs, orders, merge)
    h_NI = torch.cat([units(rows.read) for rows in learn])
    y_ND = torch.cat([rows.written for rows in learn])
    root_N1 = torch.cat([rows.weight for rows in learn]).sqrt()[:, None]
    centre = (root_N1.square() * y_ND).sum(0) / root_N1.square().sum()
    h, y = h_NI * root_N1, (y_ND - centre) * root_N1
    kernel = (h @ h.T).double()
    kernel.diagonal().add_(ridge * float(h.square().sum()) / h.shape[1])
    layer_ID = h.T @ torch.linalg.solve(kernel, y.double()).float()
    first, second = (
        float((rows.weight * (units(rows.read) @ layer_ID + centre - rows.written).square().sum(1)).sum())
        / max(float((rows.weight > 0).sum()), 1.0)
        for rows in check
    )
    return first, second


def _units(
    mlps: tuple[nn.Module, nn.Module], downs: tuple[nn.Module, nn.Module], orders: tuple[Tensor, Tensor], merge: str
) -> Callable[[Tensor], Tensor]:
    def first(read_ND: Tensor) -> Tensor:
        return hidden_of(mlps[0], downs[0], read_ND)

    def union(read_ND: Tensor) -> Tensor:
        size = len(orders[0])
        counts = (size - size // 2, size // 2)
        parts = [
            hidden_of(mlp, down, read_ND)[:, order[:count].sort().values]
            for mlp, down, order, count in zip(mlps, downs, orders, counts, strict=True)
        ]
        return torch.cat(parts, dim=1)

    return first if merge == "first" else union
