"""What two neighbouring blocks would miss if they shared one MLP with an output layer fitted to both (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deadweight.compression.rows import Rows, hidden_of, output_layer

MERGES = ("first", "union")
FITTED, JUDGED = 512, 128  # tokens of each block: fewer than units will do to tell whether it is worth a thought


@dataclass(frozen=True)
class Member:
    """A block that could share: its MLP, that one's output layer, its hidden units in the order they are kept, and
    tokens to fit to and to evaluator by."""

    mlp: nn.Module
    down: nn.Module
    order: Tensor
    fitted: Rows
    judged: Rows


def missed_by_sharing(one: Member, two: Member, ridge: float) -> dict[str, tuple[float, float]]:
    """By merge, the held-out error of either block, on the scale of a site's own errors at a width.

    ``first``: both use the first one's units; ``union``: of each its best half, side by side, as
    ``group_mlps(merge=…, refit=…)`` makes them. The output layer is pulled towards what those units wrote before.
    Solved in the tokens, which are fewer than the units.
    """
    learn = _Shown([member.fitted.leading(FITTED) for member in (one, two)], one, two)
    evaluator = _Shown([member.judged.leading(JUDGED) for member in (one, two)], one, two)
    return {merge: _missed(learn, evaluator, *_merged(one, two, merge), ridge) for merge in MERGES}


class _Shown:
    """Tokens of two blocks, and the hidden units of both MLPs on all of them; on its own tokens one's are known."""

    def __init__(self, rows: Sequence[Rows], one: Member, two: Member) -> None:
        self.rows = rows
        self.hidden = [
            torch.cat([rows[0].hidden, hidden_of(one.mlp, one.down, rows[1].read)]),
            torch.cat([hidden_of(two.mlp, two.down, rows[0].read), rows[1].hidden]),
        ]

    def units(self, kept: Sequence[Tensor]) -> Tensor:
        """(N, units) of each MLP those that are kept."""
        return torch.cat([hidden[:, which] for hidden, which in zip(self.hidden, kept, strict=True)], dim=1)


def _missed(
    learn: _Shown, evaluator: _Shown, kept: Sequence[Tensor], start_ID: Tensor, ridge: float
) -> tuple[float, float]:
    """The held-out error of either block with these units and an output layer fitted to both."""
    h_NI = learn.units(kept)
    missing_ND = torch.cat([rows.written for rows in learn.rows]) - h_NI @ start_ID
    root_N1 = torch.cat([rows.weight for rows in learn.rows]).sqrt()[:, None]
    centre = (root_N1.square() * missing_ND).sum(0) / root_N1.square().sum().clamp_min(1e-30)
    h, r = h_NI * root_N1, (missing_ND - centre) * root_N1
    kernel = (h @ h.T).double()
    kernel.diagonal().add_(max(ridge * float(h.square().sum()) / h.shape[1], torch.finfo(torch.float64).tiny))
    layer_ID = start_ID + h.T @ torch.linalg.solve(kernel, r.double()).float()
    made = evaluator.units(kept) @ layer_ID + centre
    missed: list[float] = []
    for rows, written in zip(evaluator.rows, made.split([len(rows.weight) for rows in evaluator.rows]), strict=True):
        left = (rows.weight * (written - rows.written).square().sum(1)).sum()
        missed.append(float(left) / max(float((rows.weight > 0).sum()), 1.0))
    return missed[0], missed[1]


def _merged(one: Member, two: Member, merge: str) -> tuple[list[Tensor], Tensor]:
    """The units of each MLP that the shared one keeps, and what these wrote before (I, D), without biases."""
    size = len(one.order)
    layers = [output_layer(member.down)[:size] for member in (one, two)]
    if merge == "first":
        kept = [torch.arange(size), torch.arange(0)]
    else:
        counts = (size - size // 2, size // 2)
        kept = [member.order[:count].sort().values for member, count in zip((one, two), counts, strict=True)]
    return kept, torch.cat([layer[units] for layer, units in zip(layers, kept, strict=True)])
