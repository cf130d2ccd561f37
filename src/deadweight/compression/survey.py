"""What each block of a model can do without, measured once: the part of ``compress`` that looks before it cuts (ours).

One walk through the original with a few calibration inputs. At each block the hidden units of some thousand tokens are
gathered; from their Gram matrix follow the output layers refitted at every width (``nested.py``) and, on tokens held
out, what they miss. How much a miss at this block matters in the end is tried: at one width the refitted layer is put
in and the rest of the model is run. So it is with the block left out, the one before it refitted to do its part. For
neighbours, one MLP is fitted to both. Nothing but the tokens of two blocks is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, MlpPaths, anatomy
from deadweight.compression.items import chunks, subsample
from deadweight.compression.nested import Nested
from deadweight.compression.outcome import Evaluator
from deadweight.compression.rows import Rows, joined, look, output_layer, put_output_layer, weights, with_constant
from deadweight.compression.sharing import Member, missed_by_sharing
from deadweight.errors import SurgeryError
from deadweight.meters import count
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.importance import ENOUGH_TOKENS
from deadweight.surgery.least_squares import add_gram, mirrored
from deadweight.surgery.narrow import check_narrowable, hidden_axes, units_kept

SHARES = tuple(eighth / 8 for eighth in range(7, 0, -1))  # of the units kept, at which an MLP is looked at
TRIED = 0.5  # the share at which the rest of the model is run
RIDGE = 1e-2  # of the mean of a Gram matrix's diagonal: the tokens of a survey are few
TOKENS = 4096  # looked at, or 4/3 of the hidden units where that is more

Note = Callable[[str, float], None]


@dataclass(frozen=True)
class Site:
    """One MLP and the blocks that use it, or a block whose MLP is not known and is left alone.

    order:       its hidden units, the most wanted first; None where it cannot be narrowed.
    losses:      what the model loses in the end with a share of the units, by that share, refitted at this place.
    errors:      what the block itself misses then, as a share of the stream, squared.
    dropped:     what the model loses without the block; None where it cannot be dropped.
    unit_parameters, unit_macs: saved by one unit less; MACs are those of one item.
    mlp_parameters, block_parameters, block_macs: saved by sharing the MLP with another block, by dropping this one.
    """

    blocks: tuple[int, ...]
    paths: MlpPaths | None = None
    order: Tensor | None = field(default=None, repr=False)
    losses: dict[float, float] = field(default_factory=dict)
    errors: dict[float, float] = field(default_factory=dict)
    dropped: float | None = None
    unit_parameters: int = 0
    unit_macs: int = 0
    mlp_parameters: int = 0
    block_parameters: int = 0
    block_macs: int = 0

    @property
    def amplified(self) -> float:
        """The loss in the end for an error at this place."""
        error = self.errors.get(TRIED, 0.0)
        return self.losses.get(TRIED, 0.0) / error if error > 0 else 0.0


@dataclass(frozen=True)
class Pair:
    """Two neighbouring blocks that could share one MLP, merged how, and what the model would lose in the end."""

    blocks: tuple[int, int]
    merge: str
    loss: float


@dataclass(frozen=True)
class Survey:
    """`evaluator` holds the original's answers to the inputs things were tried on; `looked_at` counts items seen, and
    `enough` those that a refit needs at most: 5 tokens for each unit of the widest MLP, or `ENOUGH_TOKENS`."""

    sites: tuple[Site, ...]
    pairs: tuple[Pair, ...]
    evaluator: Evaluator = field(repr=False)
    looked_at: int
    enough: int


@dataclass
class _Visit:
    """A block as it was seen: streams before and after it, a batch each, and rows to fit to and to evaluator by.

    given: what the block before it returned, None for the first; Swin does something in between.
    """

    block: Block
    given: list[Tensor | None]
    before: list[Tensor]
    after: list[Tensor]
    rows: list[Rows]
    solver: Nested | None = None


class Surveyor:
    """Looks at every block of `model`, which is in eval mode and without gradients."""

    def __init__(self, model: nn.Module, inputs: Sequence[Inputs], *, widths: bool, sharing: bool, depth: bool) -> None:
        self.model, self.parts = model, anatomy(model)
        self.widths, self.sharing = widths, sharing
        self.depth = depth and self.parts.depth > 1 and not getattr(model, "rope_mixed", False)
        example = inputs[0].first()
        self.walk = BlockwiseRun(model, self.parts.blocks, example)
        per_item = max(1, self.walk.enter(example, 0).stream.flatten(0, -2).shape[0])
        widest = max((b.mlp_paths.hidden for b in self.parts.blocks if b.mlp_paths is not None), default=0)
        self.enough = -(-max(ENOUGH_TOKENS, 5 * widest) // per_item)
        chosen = chunks(subsample(inputs, max(8, -(-max(TOKENS, widest * 4 // 3) // per_item))), 1)
        tried = max(1, min(len(chosen) // 4, max(4, 1024 // per_item)))
        held = {number * len(chosen) // tried for number in range(tried)}
        size = max(1, 2048 // per_item)
        self.fitted = together([one for place, one in enumerate(chosen) if place not in held], size)
        self.batches = [*self.fitted, *together([chosen[place] for place in sorted(held)], size)]
        self.evaluator = Evaluator(model, self.tried)

    @property
    def tried(self) -> list[Inputs]:
        return self.batches[len(self.fitted) :]

    def run(self, note: Note) -> Survey:
        """Block by block; `note` hears how far it is."""
        users = _users(self.parts.blocks)
        sites: list[Site] = []
        pairs: list[Pair] = []
        waiting: dict[int, list[_Visit]] = {}
        last: tuple[Site, _Visit] | None = None
        before: _Visit | None = None
        streams: list[Tensor | None] = [None] * len(self.batches)
        for block in self.parts.blocks:
            note(f"block {block.index + 1} of {self.parts.depth}", block.index / self.parts.depth)
            visit = self._visit(block, streams)
            streams, previous, before = list(visit.after), before, visit
            mine = users[block.index]
            waiting.setdefault(mine[0], []).append(visit)
            if block.index != mine[-1]:
                last = None
                continue
            site = self._site(mine, waiting.pop(mine[0]))
            if len(mine) == 1:
                joins = previous is None or _meet(previous, visit)
                site = replace(site, dropped=self._without(visit, last) if joins else None)
                pairs += self._pairs(last, (site, visit))
            sites.append(site)
            last = (site, visit) if len(mine) == 1 else None
        return Survey(tuple(sites), tuple(pairs), self.evaluator, sum(one.items for one in self.batches), self.enough)

    def _visit(self, block: Block, streams: Sequence[Tensor | None]) -> _Visit:
        found = _Visit(block, list(streams), [], [], [])
        down = None if block.mlp_paths is None else self.model.get_submodule(block.mlp_paths.down)
        for batch, stream in zip(self.batches, streams, strict=True):
            call = self.walk.enter(batch, block.index, stream)
            after, rows = look(self.walk, block.index, call, batch, block.mlp, down)
            found.before.append(call.stream)
            found.after.append(after)
            found.rows += [] if rows is None else [rows]
        return found

    def _site(self, users: tuple[int, ...], visits: Sequence[_Visit]) -> Site:
        """The MLP of some blocks at every width."""
        visit = visits[0]
        block, paths = visit.block, visit.block.mlp_paths
        tokens = visit.before[0].flatten(0, -2).shape[0] // self.batches[0].items
        saved: dict[str, Any] = _saved(self.parts.blocks, block) | {"block_macs": self._macs(visit)}
        if paths is None or not _narrowable(block):
            return Site(users, paths, **saved)
        axes = hidden_axes(self.model, paths)
        down: Any = self.model.get_submodule(paths.down)
        layer = output_layer(down)
        train = joined([rows for one in visits for rows in one.rows[: len(self.fitted)]])
        held = joined([rows for one in visits for rows in one.rows[len(self.fitted) :]])
        inputs = with_constant(train.hidden, layer) * train.weight.sqrt()[:, None]
        upper = inputs.new_zeros(inputs.shape[1], inputs.shape[1])
        add_gram(upper, inputs)
        gram = mirrored(upper)
        order = (gram.diagonal()[: paths.hidden].sqrt() * layer[: paths.hidden].norm(dim=1)).argsort(descending=True)
        solver = Nested(gram, order, bias=len(layer) > paths.hidden, ridge=RIDGE)
        for one in visits:
            one.solver = solver
        wanted = {share: units_kept(paths.hidden, share) for share in SHARES} if self.widths or self.sharing else {}
        layers = solver.refitted(layer, sorted(set(wanted.values())))
        judged = with_constant(held.hidden, layer)[:, solver.rows]  # in the order in which they are kept
        whole = judged @ layer[solver.rows]
        errors: dict[float, float] = {}
        for share, kept in wanted.items():
            if kept in layers:
                used = solver.rows[: kept + solver.bias]
                missed = (judged[:, : len(used)] @ layers[kept][used] - whole).square().sum(1)
                error = float((held.weight * missed).sum()) / max(float((held.weight > 0).sum()), 1.0)
                errors[share] = max(error, *errors.values(), 0.0)  # fewer units cannot do better but by chance
        losses = self._tried(down, layer, layers, wanted, errors, users[0], visits[0])
        return Site(
            users, paths, order, losses, errors,
            unit_parameters=sum(axis.tensor.numel() for axis in axes) // paths.hidden,
            unit_macs=len(users) * tokens * sum(a.tensor.numel() for a in axes if a.tensor.dim() > 1) // paths.hidden,
            **saved,
        )  # fmt: skip

    def _macs(self, visit: _Visit) -> int:
        """What the block computes for one item."""
        given = visit.given[0]
        item = self.batches[0].first()
        call = self.walk.enter(item, visit.block.index, None if given is None else given[:1])
        return count(_Called(visit.block.module), {"args": call.args, "kwargs": dict(call.kwargs)}).macs

    def _tried(
        self,
        down: nn.Module,
        layer: Tensor,
        layers: dict[int, Tensor],
        wanted: dict[float, int],
        errors: dict[float, float],
        first: int,
        visit: _Visit,
    ) -> dict[float, float]:
        """The loss in the end at one share, measured, and at the others in proportion to the error at this place."""
        if TRIED not in errors or errors[TRIED] <= 0:
            return dict.fromkeys(errors, 0.0)
        put_output_layer(down, layers[wanted[TRIED]])
        try:
            loss = self._end(first, visit.given)
        finally:
            put_output_layer(down, layer)
        return {share: loss * error / errors[TRIED] for share, error in errors.items()}

    def _end(self, index: int, streams: Sequence[Tensor | None]) -> float:
        """The loss when these streams reach block `index`; the batches that are tried come last."""
        mine = streams[len(self.fitted) :]
        return self.evaluator.evaluate(
            self.model, lambda number: self.walk.resume(self.tried[number], index, mine[number])
        ).divergence

    def _without(self, visit: _Visit, last: tuple[Site, _Visit] | None) -> float | None:
        """The loss without the block, the one before it refitted to do its part."""
        same = all(one.shape == two.shape for one, two in zip(visit.before, visit.after, strict=True))
        if not self.depth or not same:
            return None
        index, skipped = visit.block.index, visit.before
        if last is not None and last[1].solver is not None:
            skipped = self._made_up(last[1], visit)
        return self._end(index + 1, skipped)

    def _made_up(self, last: _Visit, visit: _Visit) -> list[Tensor]:
        """The streams without the block, with what the one before it, refitted, writes in its place."""
        assert last.solver is not None
        fitted = len(self.fitted)
        down: Any = self.model.get_submodule(last.block.mlp_paths.down)  # type: ignore[union-attr]
        layer = output_layer(down)

        def added(number: int) -> Tensor:
            return (visit.after[number] - visit.before[number]).flatten(0, -2).float().cpu()

        sums = torch.zeros_like(layer)
        for number in range(fitted):
            rows = last.rows[number]
            weight = weights(visit.after[number], self.batches[number])[:, None]
            sums += with_constant(rows.hidden, layer).T @ (added(number) * weight)
        change = last.solver.solve(sums)
        found = list(visit.before)
        for number in range(fitted, len(self.batches)):
            written = with_constant(last.rows[number].hidden, layer) @ change
            wanted, weight = added(number), weights(visit.after[number], self.batches[number])[:, None]
            if float((weight * (wanted - written).square()).sum()) < float((weight * wanted.square()).sum()):
                found[number] = visit.before[number] + written.reshape(visit.before[number].shape).to(found[number])
        return found

    def _pairs(self, last: tuple[Site, _Visit] | None, this: tuple[Site, _Visit]) -> list[Pair]:
        """This block and the one before it with one MLP."""
        if last is None or not self.sharing or not _alike(last[1].block, this[1].block):
            return []
        (one, before), (two, visit) = last, this
        if one.order is None or two.order is None or not one.errors or not two.errors:
            return []
        first, second = self._member(one, before), self._member(two, visit)
        found = [
            Pair((before.block.index, visit.block.index), merge, one.amplified * errors[0] + two.amplified * errors[1])
            for merge, errors in missed_by_sharing(first, second, RIDGE).items()
        ]
        return [min(found, key=lambda pair: pair.loss)]

    def _member(self, site: Site, visit: _Visit) -> Member:
        mlp, paths, fitted = visit.block.mlp, visit.block.mlp_paths, len(self.fitted)
        assert mlp is not None
        assert paths is not None
        assert site.order is not None  # it was looked at
        down = self.model.get_submodule(paths.down)
        return Member(mlp, down, site.order, joined(visit.rows[:fitted]), joined(visit.rows[fitted:]))


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


def _narrowable(block: Block) -> bool:
    try:
        check_narrowable(block)
    except SurgeryError:
        return False
    return True


def _meet(last: _Visit, visit: _Visit) -> bool:
    """Whether the stream leaves one block as it enters the next: not so between Swin's stages."""
    return all(one.shape == two.shape for one, two in zip(last.after, visit.before, strict=True))


def _alike(one: Block, two: Block) -> bool:
    if one.mlp is None or two.mlp is None or type(one.mlp) is not type(two.mlp):
        return False
    shapes = [{name: value.shape for name, value in mlp.state_dict().items()} for mlp in (one.mlp, two.mlp)]
    return shapes[0] == shapes[1]


def _saved(blocks: Sequence[Block], block: Block) -> dict[str, int]:
    """The parameters that are saved by sharing the MLP and by dropping the block."""
    elsewhere = {id(p) for other in blocks if other.index != block.index for p in other.module.parameters()}
    own = [p for p in block.module.parameters() if id(p) not in elsewhere]
    return {
        "mlp_parameters": 0 if block.mlp is None else sum(p.numel() for p in block.mlp.parameters()),
        "block_parameters": sum(p.numel() for p in own),
    }


class _Called(nn.Module):
    """A block that takes its call as two values, as a counter can give it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self.block(*args, **kwargs)
