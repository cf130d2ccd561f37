"""What is to be done to a model: one choice of some move at each place that changes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.compression.moves import MOVES, Choice, Move
from deadweight.surgery import drop_blocks
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.log import copy_unless_inplace
from deadweight.surgery.refit import refit_outputs
from deadweight.surgery.residual_branch import ResidualBranch


@dataclass(frozen=True)
class Plan:
    """choices: what is done, from the first block to the last; loss: what the search expects, on a survey's scale."""

    name: str
    choices: tuple[Choice, ...]
    loss: float

    @property
    def key(self) -> Hashable:
        """Plans with equal keys do the same."""
        return frozenset(choice.key for choice in self.choices)

    @property
    def removed(self) -> tuple[int, ...]:
        """The blocks that are dropped."""
        return tuple(block for choice in self.choices for block in choice.removes)

    def of(self, move: Move) -> list[Choice]:
        """The choices of one move."""
        return [choice for choice in self.choices if choice.move == move.name]

    def sized(self) -> Plan:
        """One of the same size that is quick to make."""
        moves = {move.name: move for move in MOVES}
        return replace(self, choices=tuple(moves[choice.move].sized(choice) for choice in self.choices))

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name}
        for move in MOVES:
            found |= move.as_json(self.of(move))
        return found | {"expected_loss": self.loss}


def cut(model: nn.Module, plan: Plan, inputs: Sequence[Inputs]) -> nn.Module:
    """A copy of `model` that is cut as planned and not yet refitted; the surgeries are in its log.

    `inputs` choose the units where two MLPs are united.
    """
    removed = plan.removed
    kept = [index for index in range(anatomy(model).depth) if index not in removed]
    place = {index: number for number, index in enumerate(kept)}
    small = copy_unless_inplace(model, inplace=False)
    if removed:
        drop_blocks(small, removed, inplace=True)
    for move in reversed(MOVES):
        if choices := plan.of(move):
            move.apply(small, choices, place, inputs)
    return small


def refit(small: nn.Module, model: nn.Module, plan: Plan, inputs: Sequence[Inputs], target: str) -> None:
    """Refit what `plan` changed of `small`, in place."""
    removed = plan.removed
    kept = [index for index in range(anatomy(model).depth) if index not in removed]
    touched = {block for choice in plan.choices for block in choice.touches}
    blocks = anatomy(small).blocks
    known = [blocks[number].mlp_paths is not None for number in range(len(kept))]
    wanted = [number for number, index in enumerate(kept) if index in touched and known[number]]
    refit_outputs(small, model, inputs, target=target, blocks=wanted, origins=kept)


def target_for(model: nn.Module, example: Inputs) -> str:
    """``"stream"`` where every block adds its MLP's output to the stream as it is, else ``"layer"``."""
    blocks = anatomy(model).blocks
    walk = BlockwiseRun(model, blocks, example)
    after = None
    for block in blocks:
        call = walk.enter(example, block.index, after)
        if block.mlp_paths is not None:
            down = model.get_submodule(block.mlp_paths.down)
            given = call.stream if after is None else after
            if ResidualBranch.of(walk, block.index, down, example, given, required=False).scale is None:
                return "layer"
        after = walk.run(block.index, call)
    return "stream"
