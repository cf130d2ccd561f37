"""Which hidden units of an MLP to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import MlpPaths, anatomy
from deadweight.anatomy.parts import is_transposed, stream
from deadweight.surgery.calibration import Inputs, evaluating, require_numbers

CHOICES = ("first", "weight", "activation")
ENOUGH_TOKENS = 16_384


def unit_scores(
    model: nn.Module, mlps: Sequence[MlpPaths], by: str, inputs: Sequence[Inputs] = ()
) -> dict[str, Tensor]:
    """A score for each hidden unit, by the path of its MLP's output layer; the largest are kept.

    ``first`` scores by place (arXiv 2512.01059, ShallowMLP); ``weight`` by the product of the norms of what a unit
    reads and what it writes; ``activation`` by how strong it is on `inputs` times the norm of what it writes (ours).
    """
    if by != "first":
        require_numbers(model, f"by={by!r}")
    if by == "activation":
        strength = _strength(model, mlps, inputs)
        return {paths.down: strength[paths.down] * _written(model, paths) for paths in mlps}
    if by == "weight":
        return {paths.down: _read(model, paths) * _written(model, paths) for paths in mlps}
    return {paths.down: torch.arange(paths.hidden, 0, -1, dtype=torch.float64) for paths in mlps}


def best(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` largest scores, in ascending order; the earlier of equal ones."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values.cpu()


def rows_of(layer: nn.Module) -> Tensor:
    """(outputs, inputs) the weight of a linear layer."""
    weight: Any = layer.weight
    rows: Tensor = (weight.T if is_transposed(layer) else weight).detach()
    return rows


def _written(model: nn.Module, paths: MlpPaths) -> Tensor:
    norms: Tensor = rows_of(model.get_submodule(paths.down)).double().norm(dim=0).cpu()
    return norms


def _read(model: nn.Module, paths: MlpPaths) -> Tensor:
    """A gated unit has two input rows; both norms enter the product, because either can silence it.

    With what the unit writes, the product does not change when its input is scaled up and its output down alike.
    """
    score: Tensor = torch.ones(paths.hidden, dtype=torch.float64)
    for name in paths.up:
        norms = rows_of(model.get_submodule(name)).double().norm(dim=1).cpu()
        score = score * norms.reshape(-1, paths.hidden).prod(dim=0)
    return score


def _strength(model: nn.Module, mlps: Sequence[MlpPaths], inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """Root mean square of each hidden unit; a token weighs the inverse of its squared norm in the stream.

    Without the weights the few tokens of huge norm (attention sinks) would choose the units.
    """
    sums = {paths.down: torch.zeros(paths.hidden, dtype=torch.float64) for paths in mlps}
    waiting: list[tuple[str, Tensor]] = []
    handles = []
    names = {id(model.get_submodule(name)): name for name in sums}

    def keep(module: nn.Module, args: Any) -> None:
        waiting.append((names[id(module)], args[0].flatten(0, -2).float().square()))

    def weigh(module: nn.Module, args: Any, output: Any) -> None:
        tokens = stream(output).flatten(0, -2).float()
        weights = tokens.square().sum(1).clamp_min(1e-12).reciprocal()
        for name, squares in waiting:
            sums[name] += (weights @ squares).double().cpu()
        waiting.clear()

    for name in sums:
        handles.append(model.get_submodule(name).register_forward_pre_hook(keep))
    handles += [block.module.register_forward_hook(weigh) for block in anatomy(model).blocks]
    tokens = 0
    try:
        with evaluating(model):
            for batch in inputs:
                batch.call(model)
                tokens += batch.tokens
                if tokens >= ENOUGH_TOKENS:
                    break
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.sqrt() for name, total in sums.items()}
