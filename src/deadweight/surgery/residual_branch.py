"""Where an MLP's output meets the residual stream of a block: watched, and shown to be an addition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy.parts import entrance
from deadweight.errors import SurgeryError
from deadweight.surgery.blockwise import BlockwiseRun, Call
from deadweight.surgery.calibration import Inputs

MlpInputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What one call of a block showed: hidden units (…, I), the output layer's output (…, D), the stream after."""

    hidden: Tensor
    output: Tensor
    after: Tensor
    mlp_inputs: MlpInputs


@dataclass(frozen=True)
class ResidualBranch:
    """A block as its output layer `down` sees it: stream after = rest + scale · output of `down`.

    scale: (D,) of each channel (1, or a LayerScale's γ); None where the output is not simply added.
    """

    walk: BlockwiseRun
    index: int
    down: nn.Module
    scale: Tensor | None

    @classmethod
    def of(
        cls, walk: BlockwiseRun, index: int, down: nn.Module, example: Inputs, before: Tensor, *, required: bool
    ) -> ResidualBranch:
        """Try what the block does with made-up outputs of `down`, on one item whose stream is `before`.

        Raises
        ------
        SurgeryError
            `required`, and the output is not simply added, as where a norm follows the MLP.
        """
        call = walk.enter(example, index, before)
        scale = _scale(walk, index, down, call)
        if scale is None and required:
            raise SurgeryError(
                f"block {index} ({walk.blocks[index].path}) does not add its MLP's output to the stream as it is",
                expected="a block that does, for a refit towards the stream",
                cure='refit="layer" works on it',
            )
        return cls(walk, index, down, scale)

    @property
    def mlp(self) -> nn.Module:
        found = self.walk.blocks[self.index].mlp
        assert found is not None  # refit_outputs refuses blocks without
        return found

    def watch(self, call: Call) -> Seen:
        """Run the block."""
        inputs: list[MlpInputs] = []
        layer: list[tuple[Tensor, Tensor]] = []
        handles = [
            entrance(self.mlp).register_forward_pre_hook(
                lambda module, args, kwargs: inputs.append((args, kwargs)), with_kwargs=True
            ),
            self.down.register_forward_hook(lambda module, args, output: layer.append((args[0], output))),
        ]
        try:
            after = self.walk.run(self.index, call)
        finally:
            for handle in handles:
                handle.remove()
        return Seen(*layer[0], after, inputs[0])

    def rest(self, seen: Seen) -> Tensor:
        """The stream after the block without the MLP's part."""
        assert self.scale is not None
        return seen.after - self.scale.to(seen.after) * seen.output.reshape(seen.after.shape)

    def finish(self, rest: Tensor, mlp_inputs: MlpInputs) -> Tensor:
        """The stream after the block with the weights the MLP has now; attention is not run again."""
        assert self.scale is not None
        output = output_of(self.mlp, self.down, mlp_inputs)
        return rest + self.scale.to(rest) * output.reshape(rest.shape)


def output_of(mlp: nn.Module, down: nn.Module, inputs: MlpInputs) -> Tensor:
    """What `down`, a layer of `mlp`, writes when `mlp` is called."""
    found: list[Tensor] = []
    handle = down.register_forward_hook(lambda module, args, output: found.append(output))
    try:
        mlp(*inputs[0], **inputs[1])
    finally:
        handle.remove()
    return found[0]


def _scale(walk: BlockwiseRun, index: int, down: nn.Module, call: Call) -> Tensor | None:
    """γ of stream = rest + γ · output, if that is how the block works: found with constants, tried on noise."""

    def after(make: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        with _output(down, make) as made:
            return walk.run(index, call).flatten(0, -2).double(), made[0].flatten(0, -2).double()

    rest, _ = after(torch.zeros_like)
    size = float(rest.abs().median().clamp_min(1e-6))
    height, scale = 1.0, torch.zeros(())
    for _ in range(2):  # once more at the stream's own size: a LayerScale's γ may be tiny
        with_constant, made = after(_constant(height))
        if with_constant.shape != made.shape:
            return None
        scale = ((with_constant - rest) / made).median(0).values
        largest = float(scale.abs().max())
        if not 0 < largest < float("inf"):
            return None
        height = size / largest
    tolerance = 1e-3 if next(down.parameters()).dtype in (torch.float32, torch.float64) else 3e-2
    generator = torch.Generator().manual_seed(0)
    noise = height * torch.randn(rest.shape, generator=generator)
    with_noise, made = after(lambda output: noise.reshape(output.shape).to(output))
    expected = scale * made
    if float((with_noise - rest - expected).norm()) > 10 * tolerance * float(expected.norm()):
        return None
    ones = torch.ones_like(scale)
    return (ones if torch.allclose(scale, ones, rtol=0, atol=tolerance) else scale).float()


def _constant(height: float) -> Callable[[Tensor], Tensor]:
    return lambda output: torch.full_like(output, height)


@contextmanager
def _output(down: nn.Module, make: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Put another output in the place of `down`'s own."""
    made: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        made.append(make(output))
        return made[-1]

    handle = down.register_forward_hook(hook)
    try:
        yield made
    finally:
        handle.remove()
