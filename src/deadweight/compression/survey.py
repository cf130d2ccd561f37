"""What each block of a model can do without, measured once: ``compress`` looks before it cuts (ours).

One walk through the original with a few calibration inputs. At each block every move says what could be done there,
what it would cost and what it would save (``moves/``). Nothing but the tokens of two blocks is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from deadweight.anatomy import Block, anatomy
from deadweight.compression.items import chunks, subsample
from deadweight.compression.moves import Choice, Move
from deadweight.compression.outcome import Evaluator
from deadweight.compression.rows import look
from deadweight.compression.visit import Seen, Site, Trial, Visit
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.importance import ENOUGH_TOKENS

TOKENS = 4096  # looked at, or 4/3 of the hidden units where that is more

Note = Callable[[str, float], None]


@dataclass(frozen=True)
class Survey:
    """sites: places, in the order of their last blocks; choices: for each of them what the moves offer that ends there.

    `evaluator` holds the original's answers to the inputs things were tried on; `looked_at` counts items seen, and
    `enough` those that a refit needs at most: 5 tokens for each unit of the widest MLP, or `ENOUGH_TOKENS`.
    """

    sites: tuple[Site, ...]
    choices: tuple[tuple[Choice, ...], ...]
    evaluator: Evaluator = field(repr=False)
    looked_at: int
    enough: int


class Surveyor:
    """Looks at every block of `model`, which is in eval mode and without gradients, for what `moves` can do."""

    def __init__(self, model: nn.Module, inputs: Sequence[Inputs], moves: Sequence[Move]) -> None:
        self.moves, parts = moves, anatomy(model)
        example = inputs[0].first()
        walk = BlockwiseRun(model, parts.blocks, example)
        per_item = max(1, walk.enter(example, 0).stream.flatten(0, -2).shape[0])
        widest = max((b.mlp_paths.hidden for b in parts.blocks if b.mlp_paths is not None), default=0)
        self.enough = -(-max(ENOUGH_TOKENS, 5 * widest) // per_item)
        chosen = chunks(subsample(inputs, max(8, -(-max(TOKENS, widest * 4 // 3) // per_item))), 1)
        tried = max(1, min(len(chosen) // 4, max(4, 1024 // per_item)))
        held = {number * len(chosen) // tried for number in range(tried)}
        size = max(1, 2048 // per_item)
        fitted = together([one for place, one in enumerate(chosen) if place not in held], size)
        others = together([chosen[place] for place in sorted(held)], size)
        self.trial = Trial(model, parts, walk, fitted, others, Evaluator(model, others))

    def run(self, note: Note) -> Survey:
        """Block by block; `note` hears how far it is."""
        trial = self.trial
        blocks = trial.parts.blocks
        users = _users(blocks)
        sites: list[Site] = []
        choices: list[tuple[Choice, ...]] = []
        waiting: dict[int, list[Seen]] = {}
        last: Visit | None = None
        before: Seen | None = None
        streams: list[Tensor | None] = [None] * len(trial.batches)
        for block in blocks:
            note(f"block {block.index + 1} of {trial.parts.depth}", block.index / trial.parts.depth)
            seen = self._look(block, streams)
            streams, previous, before = list(seen.after), before, seen
            mine = users[block.index]
            waiting.setdefault(mine[0], []).append(seen)
            if block.index != mine[-1]:
                last = None
                continue
            alone = len(mine) == 1
            joins = previous is None or _meet(previous, seen)
            visit = Visit(trial, mine, waiting.pop(mine[0]), last if alone else None, joins)
            choices.append(tuple(choice for move in self.moves for choice in move.measure(visit)))
            sites.append(visit.site)
            visit.previous = None
            last = visit if alone else None
        return Survey(
            tuple(sites), tuple(choices), trial.evaluator, sum(one.items for one in trial.batches), self.enough
        )

    def _look(self, block: Block, streams: Sequence[Tensor | None]) -> Seen:
        found = Seen(block, list(streams), [], [], [])
        model, walk = self.trial.model, self.trial.walk
        down: Any = None if block.mlp_paths is None else model.get_submodule(block.mlp_paths.down)
        for batch, stream in zip(self.trial.batches, streams, strict=True):
            call = walk.enter(batch, block.index, stream)
            after, rows = look(walk, block.index, call, batch, block.mlp, down)
            found.before.append(call.stream)
            found.after.append(after)
            found.rows += [] if rows is None else [rows]
        return found


def together(items: Sequence[Inputs], size: int) -> list[Inputs]:
    """Single items as batches of `size`; items of different shapes stay apart."""
    found: list[list[Inputs]] = []
    for item in items:
        if found and len(found[-1]) < size and found[-1][0].joins(item):
            found[-1].append(item)
        else:
            found.append([item])
    return [group[0].joined(group[1:]) for group in found]


def _users(blocks: Sequence[Block]) -> list[tuple[int, ...]]:
    """For each block those that use the same MLP, itself included."""
    return [
        tuple(b.index for b in blocks if b.mlp is not None and b.mlp is block.mlp) or (block.index,) for block in blocks
    ]


def _meet(last: Seen, seen: Seen) -> bool:
    """Whether the stream leaves one block as it enters the next."""
    return all(one.shape == two.shape for one, two in zip(last.after, seen.before, strict=True))
