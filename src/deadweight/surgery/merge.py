"""Making one MLP of several, for blocks that will share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from deadweight.anatomy import MlpPaths
from deadweight.surgery.importance import best, rows_of
from deadweight.surgery.narrow import hidden_axes

MERGES = ("first", "mean", "align", "union")
NEEDS_LAYERS = ("align", "union")  # the others do not look inside the MLP


@torch.no_grad()
def merge_mlps(
    model: nn.Module,
    modules: Sequence[nn.Module],
    paths: Sequence[MlpPaths | None],
    merge: str,
    scores: Mapping[str, Tensor],
) -> None:
    """Make `modules[0]` stand for all of `modules`, whose layers are at `paths`.

    ``first``  it stays as it is.
    ``mean``   the average of the weights.
    ``align``  the average after the hidden units of each were put in the order that matches the first's best (an
               assignment problem on weights, as in Git Re-Basin, arXiv 2209.04836, one layer at a time).
    ``union``  of each its best units by `scores`, side by side; the output biases are averaged (ours).
    """
    if merge == "first":
        return
    if merge == "mean":
        _average(modules[0], modules[1:])
        return
    known = [one for one in paths if one is not None]
    if merge == "align":
        for other in known[1:]:
            order = matching(model, known[0], other)
            for axis in hidden_axes(model, other):
                axis.tensor.copy_(axis.joined([axis.taken(order)]))
        _average(modules[0], modules[1:])
        return
    _unite(model, known, scores)


def matching(model: nn.Module, one: MlpPaths, other: MlpPaths) -> Tensor:
    """For each hidden unit of `one` the unit of `other` that goes with it: the assignment of largest total cosine."""
    from scipy.optimize import linear_sum_assignment

    alike_II = torch.zeros(one.hidden, one.hidden, dtype=torch.float64)
    for first, second in zip(_unit_rows(model, one), _unit_rows(model, other), strict=True):
        alike_II += nn.functional.normalize(first, dim=1) @ nn.functional.normalize(second, dim=1).T
    _, chosen = linear_sum_assignment(alike_II.numpy(), maximize=True)
    return torch.from_numpy(chosen)


def _unit_rows(model: nn.Module, paths: MlpPaths) -> list[Tensor]:
    """(I, D) matrices with a row for each unit: what it reads (gate and up apart), and what it writes."""
    read = [rows_of(model.get_submodule(name)).double().cpu() for name in paths.up]
    halves = [half for rows in read for half in torch.split(rows, paths.hidden)]
    return [*halves, rows_of(model.get_submodule(paths.down)).T.double().cpu()]


def _average(keeper: nn.Module, others: Sequence[nn.Module]) -> None:
    states = [module.state_dict() for module in others]
    for name, own in keeper.state_dict().items():
        if own.is_floating_point():
            total = own.double()
            for state in states:
                total = total + state[name].double()
            own.copy_(total / (1 + len(states)))


def _unite(model: nn.Module, paths: Sequence[MlpPaths], scores: Mapping[str, Tensor]) -> None:
    """Side by side in every tensor that has an entry a unit; the output bias is the mean."""
    hidden, members = paths[0].hidden, len(paths)
    counts = [hidden // members + (place < hidden % members) for place in range(members)]
    chosen = [best(scores[one.down], count) for one, count in zip(paths, counts, strict=True)]
    for axes in zip(*(hidden_axes(model, one) for one in paths), strict=True):
        axes[0].tensor.copy_(axes[0].joined([axis.taken(units) for axis, units in zip(axes, chosen, strict=True)]))
    biases = [getattr(model.get_submodule(one.down), "bias", None) for one in paths]
    if biases[0] is not None:
        biases[0].copy_(torch.stack([bias for bias in biases if bias is not None]).mean(0))
