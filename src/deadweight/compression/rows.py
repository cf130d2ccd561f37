"""What the MLP of one block showed of some tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy.parts import entrance, is_transposed
from deadweight.surgery.blockwise import BlockwiseRun, Call
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.importance import rows_of


@dataclass(frozen=True)
class Rows:
    """N tokens: what the MLP read (N, D), its hidden units (N, I), what its output layer wrote (N, D), and weights.

    A token weighs the inverse of its squared norm in the stream, as in ``surgery/refit.py``; padding weighs nothing.
    """

    read: Tensor
    hidden: Tensor
    written: Tensor
    weight: Tensor

    def leading(self, number: int) -> Rows:
        """`number` of them, evenly spread."""
        if len(self.weight) <= number:
            return self
        which = torch.linspace(0, len(self.weight) - 1, number).round().long()
        return Rows(self.read[which], self.hidden[which], self.written[which], self.weight[which])


def joined(rows: Sequence[Rows]) -> Rows:
    """All of them."""
    parts = [(one.read, one.hidden, one.written, one.weight) for one in rows]
    return Rows(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def look(
    walk: BlockwiseRun, index: int, call: Call, inputs: Inputs, mlp: nn.Module | None, down: Any
) -> tuple[Tensor, Any]:
    """(the stream after block `index`, the rows its MLP showed; None for an MLP that is not known)."""
    if down is None or mlp is None:
        return walk.run(index, call), None
    seen: dict[str, Tensor] = {}
    handles = [
        entrance(mlp).register_forward_pre_hook(
            lambda module, args, kwargs: seen.update(read=args[0] if args else next(iter(kwargs.values()))),
            with_kwargs=True,
        ),
        down.register_forward_hook(lambda module, args, output: seen.update(hidden=args[0], written=output)),
    ]
    try:
        after = walk.run(index, call)
    finally:
        for handle in handles:
            handle.remove()
    weight = weights(after, inputs)
    read, hidden, written = (seen[name].flatten(0, -2).float().cpu() for name in ("read", "hidden", "written"))
    return after, Rows(read, hidden, written, weight)


def weights(stream: Tensor, inputs: Inputs) -> Tensor:
    """(N,) how much each token of a stream counts."""
    found = stream.flatten(0, -2).float().square().sum(1).clamp_min(1e-12).reciprocal().cpu()
    mask = inputs.mask
    return found if mask is None else found * mask.flatten().to(found)


def hidden_of(mlp: nn.Module, down: nn.Module, read_ND: Tensor) -> Tensor:
    """(N, I) the hidden units of `mlp` on tokens of any block."""
    found: list[Tensor] = []
    handle = down.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    weight: Any = down.weight
    try:
        read_1ND = read_ND[None].to(weight)
        mlp(read_1ND, *(torch.zeros_like(read_1ND) for _ in range(_asked(mlp) - 1)))  # Bloom's adds the stream itself
    finally:
        handle.remove()
    return found[0].flatten(0, -2).float().cpu()


def _asked(mlp: nn.Module) -> int:
    """How many tensors the forward pass of `mlp` cannot do without."""
    given = inspect.signature(mlp.forward).parameters.values()
    return sum(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in given)


def output_layer(down: Any) -> Tensor:
    """(I, D) float32 on the CPU, with the bias as a last row where there is one."""
    weight = rows_of(down).T.float().cpu()
    bias = getattr(down, "bias", None)
    return weight.contiguous() if bias is None else torch.cat([weight, bias.detach().float().cpu()[None]])


def put_output_layer(down: Any, layer_ID: Tensor) -> None:
    """Write what :func:`output_layer` reads."""
    units = len(layer_ID) - (getattr(down, "bias", None) is not None)
    weight = layer_ID[:units]
    down.weight.copy_(weight if is_transposed(down) else weight.T)
    if units < len(layer_ID):
        down.bias.copy_(layer_ID[units])


def with_constant(hidden_NI: Tensor, layer_ID: Tensor) -> Tensor:
    """The hidden units with a 1 beside them, where the layer has a bias."""
    if len(layer_ID) == hidden_NI.shape[1]:
        return hidden_NI
    return torch.cat([hidden_NI, torch.ones(len(hidden_NI), 1)], dim=1)
