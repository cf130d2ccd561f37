"""What is to be done to a model: how many units each MLP keeps, which blocks share one, which go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.compression.survey import Pair, Site
from deadweight.surgery import drop_blocks, group_mlps
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.importance import best
from deadweight.surgery.log import copy_unless_inplace, record
from deadweight.surgery.narrow import narrow
from deadweight.surgery.refit import refit_outputs
from deadweight.surgery.residual_branch import ResidualBranch
from deadweight.surgery.widths import note_width


@dataclass(frozen=True)
class Plan:
    """units: kept by the MLP of each block that is narrowed; shared: pairs of blocks; dropped: blocks.

    Indices are those of the original's blocks. loss: what the search expects, on the scale of a survey.
    """

    name: str
    units: dict[int, int]
    shared: tuple[Pair, ...]
    dropped: tuple[int, ...]
    loss: float

    @property
    def key(self) -> tuple[Any, ...]:
        """Plans with equal keys do the same."""
        return tuple(sorted(self.units.items())), tuple(pair.blocks for pair in self.shared), self.dropped

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "units": {str(block): count for block, count in self.units.items()},
            "shared": [{"blocks": list(pair.blocks), "merge": pair.merge} for pair in self.shared],
            "dropped": list(self.dropped),
            "expected_loss": self.loss,
        }


def cut(model: nn.Module, plan: Plan, sites: Sequence[Site], inputs: Sequence[Inputs]) -> nn.Module:
    """A copy of `model` that is cut as planned and not yet refitted; the surgeries are in its log.

    `inputs` choose the units where two MLPs are united.
    """
    kept = [index for index in range(anatomy(model).depth) if index not in plan.dropped]
    place = {index: number for number, index in enumerate(kept)}
    small = copy_unless_inplace(model, inplace=False)
    if plan.dropped:
        drop_blocks(small, plan.dropped, inplace=True)
    groups = [[place[block] for block in site.blocks] for site in sites if len(site.blocks) > 1]
    for merge in sorted({pair.merge for pair in plan.shared}):
        groups += [[place[block] for block in pair.blocks] for pair in plan.shared if pair.merge == merge]
        group_mlps(small, pattern=groups, merge=merge, batches=inputs if merge == "union" else None, inplace=True)
    _narrow(small, plan, sites, place)
    return small


def _narrow(small: nn.Module, plan: Plan, sites: Sequence[Site], place: dict[int, int]) -> None:
    parts = anatomy(small)
    shares = [1.0] * parts.depth
    changes: set[tuple[int, int]] = set()
    for site in sites:
        count = plan.units.get(site.blocks[0])
        at = [place[block] for block in site.blocks if block in place]
        if count is None or not at or site.order is None:
            continue
        paths = parts.blocks[at[0]].mlp_paths
        assert paths is not None  # the site has an order
        changes.add((paths.hidden, count))
        for number in at:
            shares[number] = count / paths.hidden
        ranks = site.order.argsort()
        narrow(small, paths, best(-ranks, count))
    if changes:
        everywhere = all(share < 1 for share in shares)
        if everywhere:
            note_width(small, parts.width, changes)
        record(small, "shallow_mlps", keep=shares, by="activation", refit="stream")


def refit(small: nn.Module, model: nn.Module, plan: Plan, inputs: Sequence[Inputs], target: str) -> None:
    """Refit what `plan` changed of `small`, in place."""
    depth = anatomy(model).depth
    kept = [index for index in range(depth) if index not in plan.dropped]
    before_gaps = {index - 1 for index in plan.dropped}
    touched = {*plan.units, *(block for pair in plan.shared for block in pair.blocks), *before_gaps}
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
