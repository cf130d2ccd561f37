"""Dropping a block, the one before it refitted to do its part (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from deadweight.compression.moves.move import Choice, Move
from deadweight.compression.rows import output_layer, weights, with_constant
from deadweight.compression.visit import Visit


class Drop(Move):
    """Blocks whose MLP is their own, no two neighbours."""

    name: ClassVar[str] = "depth"
    excludes: ClassVar[frozenset[str]] = frozenset({"depth"})

    def measure(self, visit: Visit) -> list[Choice]:
        """One choice, tried with the block before refitted."""
        model = visit.trial.model
        same = all(one.shape == two.shape for one, two in zip(visit.before, visit.after, strict=True))
        if len(visit.users) > 1 or not (visit.meets and same) or visit.trial.parts.depth < 2:
            return []
        if getattr(model, "rope_mixed", False):  # each block has rotations of its own
            return []
        before = visit.previous
        skipped = visit.before if before is None or before.solver is None else _made_up(before, visit)
        index = visit.index
        return [
            Choice(
                self.name, visit.users, visit.trial.end(index + 1, skipped), visit.site.block_parameters,
                visit.site.block_macs, touches=(index - 1,), removes=(index,),
            )
        ]  # fmt: skip

    def as_json(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return {"dropped": [block for choice in choices for block in choice.removes]}

    def expected(self, choice: Choice) -> dict[str, Any]:
        return {"without": choice.loss}


def _made_up(last: Visit, visit: Visit) -> list[Tensor]:
    """The streams without the block, with what the one before it, refitted, writes in its place."""
    assert last.solver is not None
    trial = visit.trial
    fitted = len(trial.fitted)
    layer = output_layer(last.down)

    def added(number: int) -> Tensor:
        return (visit.after[number] - visit.before[number]).flatten(0, -2).float().cpu()

    sums = torch.zeros_like(layer)
    for number in range(fitted):
        rows = last.rows[number]
        weight = weights(visit.after[number], trial.batches[number])[:, None]
        sums += with_constant(rows.hidden, layer).T @ (added(number) * weight)
    change = last.solver.solve(sums)
    found = list(visit.before)
    for number in range(fitted, len(trial.batches)):
        written = with_constant(last.rows[number].hidden, layer) @ change
        wanted, weight = added(number), weights(visit.after[number], trial.batches[number])[:, None]
        if float((weight * (wanted - written).square()).sum()) < float((weight * wanted.square()).sum()):
            found[number] = visit.before[number] + written.reshape(visit.before[number].shape).to(found[number])
    return found
