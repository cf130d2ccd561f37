"""One MLP for two neighbouring blocks, fitted to both (ours; `sharing.py` says what they would miss)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from deadweight.anatomy import Block, anatomy
from deadweight.compression.moves.move import Choice, Move
from deadweight.compression.rows import joined
from deadweight.compression.sharing import Member, missed_by_sharing
from deadweight.compression.visit import RIDGE, Visit
from deadweight.surgery import group_mlps
from deadweight.surgery.calibration import Inputs


@dataclass(frozen=True)
class SharedMlp(Choice):
    """Two neighbours with one MLP, merged how."""

    merge: str = "first"


class Share(Move):
    """Neighbours with alike MLPs of their own share one."""

    name: ClassVar[str] = "sharing"

    def measure(self, visit: Visit) -> list[SharedMlp]:
        """This block and the one before it, merged in the better way."""
        before, two = visit.previous, visit.widths()  # the next block asks for the widths of this one
        if len(visit.users) > 1 or before is None or not _alike(before.block, visit.block):
            return []
        one = before.widths()
        if one.order is None or two.order is None or not one.errors or not two.errors:
            return []
        blocks = (before.index, visit.index)
        found = [
            SharedMlp(
                self.name, blocks, one.amplified * errors[0] + two.amplified * errors[1], two.mlp_parameters,
                touches=blocks, merge=merge,
            )
            for merge, errors in missed_by_sharing(_member(before), _member(visit), RIDGE).items()
        ]  # fmt: skip
        return [min(found, key=lambda choice: choice.loss)]

    def apply(
        self, small: nn.Module, choices: Sequence[SharedMlp], place: Mapping[int, int], inputs: Sequence[Inputs]
    ) -> None:
        """`inputs` choose the units where two MLPs are united."""
        users: dict[int, list[int]] = {}
        for block in anatomy(small).blocks:
            if block.mlp is not None:
                users.setdefault(id(block.mlp), []).append(block.index)
        groups = sorted((group for group in users.values() if len(group) > 1), key=max)  # shared before all this
        for merge in sorted({choice.merge for choice in choices}):
            groups += [[place[block] for block in choice.blocks] for choice in choices if choice.merge == merge]
            group_mlps(small, pattern=groups, merge=merge, batches=inputs if merge == "union" else None, inplace=True)

    def sized(self, choice: SharedMlp) -> SharedMlp:
        return replace(choice, merge="first")  # which units are merged is the same size

    def as_json(self, choices: Sequence[SharedMlp]) -> dict[str, Any]:
        return {"shared": [{"blocks": list(choice.blocks), "merge": choice.merge} for choice in choices]}

    def row(self, choice: SharedMlp, block: int) -> dict[str, Any]:
        return {"shares_with": choice.blocks[1 - choice.blocks.index(block)]}


def _member(visit: Visit) -> Member:
    mlp, order, fitted = visit.block.mlp, visit.widths().order, len(visit.trial.fitted)
    assert mlp is not None
    assert order is not None  # it was looked at
    return Member(mlp, visit.down, order, joined(visit.rows[:fitted]), joined(visit.rows[fitted:]))


def _alike(one: Block, two: Block) -> bool:
    if one.mlp is None or two.mlp is None or type(one.mlp) is not type(two.mlp):
        return False
    shapes = [{name: value.shape for name, value in mlp.state_dict().items()} for mlp in (one.mlp, two.mlp)]
    return shapes[0] == shapes[1]
