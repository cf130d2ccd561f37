"""One block of the original as a survey sees it, and what can be tried there.

The hidden units of some thousand tokens are gathered; from their Gram matrix follow the output layers refitted at every
width (``nested.py``) and, on tokens held out, what they miss. How much a miss at this block matters in the end is
tried: at one width the refitted layer is put in and the rest of the model is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from deadweight.anatomy import Anatomy, Block, MlpPaths
from deadweight.compression.nested import Nested
from deadweight.compression.outcome import Evaluator
from deadweight.compression.rows import Rows, joined, output_layer, put_output_layer, with_constant
from deadweight.errors import SurgeryError
from deadweight.meters import count
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.least_squares import add_gram, mirrored
from deadweight.surgery.narrow import check_narrowable, hidden_axes, units_kept

SHARES = tuple(eighth / 8 for eighth in range(7, 0, -1))  # of the units kept, at which an MLP is looked at
TRIED = 0.5  # the share at which the rest of the model is run
RIDGE = 1e-2  # of the mean of a Gram matrix's diagonal: the tokens of a survey are few


@dataclass(frozen=True)
class Site:
    """One MLP and the blocks that use it, or a block whose MLP is not known and is left alone.

    order:       its hidden units, the most wanted first; None where it cannot be narrowed, or no move asked.
    losses:      what the model loses in the end with a share of the units, by that share, refitted at this place.
    errors:      what the block itself misses then, as a share of the stream, squared.
    unit_parameters, unit_macs: saved by one unit less; MACs are those of one item.
    mlp_parameters, block_parameters, block_macs: saved by sharing the MLP with another block, by dropping this one.
    """

    blocks: tuple[int, ...]
    paths: MlpPaths | None = None
    order: Tensor | None = field(default=None, repr=False)
    losses: dict[float, float] = field(default_factory=dict)
    errors: dict[float, float] = field(default_factory=dict)
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


@dataclass(eq=False)
class Trial:
    """The original, and inputs: batches to fit to come first, those that things are tried on after them."""

    model: nn.Module
    parts: Anatomy
    walk: BlockwiseRun
    fitted: Sequence[Inputs]
    tried: Sequence[Inputs]
    evaluator: Evaluator

    @cached_property
    def batches(self) -> list[Inputs]:
        """All of them."""
        return [*self.fitted, *self.tried]

    def end(self, index: int, streams: Sequence[Tensor | None]) -> float:
        """The loss when these streams, a batch each, reach block `index` and the rest of the model is run."""
        mine = streams[len(self.fitted) :]
        return self.evaluator.evaluate(
            self.model, lambda number: self.walk.resume(self.tried[number], index, mine[number])
        ).divergence


@dataclass
class Seen:
    """A block as it was seen: streams before and after it, a batch each, and rows to fit to and to evaluate by.

    given: what the block before it returned, None for the first; Swin does something in between.
    """

    block: Block
    given: list[Tensor | None]
    before: list[Tensor]
    after: list[Tensor]
    rows: list[Rows]


@dataclass(eq=False)
class Visit:
    """A block with an MLP of its own, or all blocks that use one MLP, at the last of them.

    users:    their numbers.
    seen:     what each of them showed.
    previous: the visit to the block before, where both blocks have an MLP of their own; gone once this one is over.
    meets:    whether the stream leaves the block before as it enters this one: not so between Swin's stages.
    """

    trial: Trial
    users: tuple[int, ...]
    seen: Sequence[Seen]
    previous: Visit | None
    meets: bool

    @property
    def index(self) -> int:
        return self.seen[0].block.index

    @property
    def block(self) -> Block:
        return self.seen[0].block

    @property
    def before(self) -> list[Tensor]:
        """The streams that enter the block, a batch each."""
        return self.seen[0].before

    @property
    def after(self) -> list[Tensor]:
        """The streams that leave it."""
        return self.seen[0].after

    @property
    def rows(self) -> list[Rows]:
        """What its MLP showed, a batch each."""
        return self.seen[0].rows

    @property
    def down(self) -> Any:
        """The output layer of its MLP."""
        assert self.block.mlp_paths is not None
        return self.trial.model.get_submodule(self.block.mlp_paths.down)

    @property
    def site(self) -> Site:
        """What is known so far: with widths once a move has asked for them."""
        found: Site = vars(self).get("_widths", self._plain)
        return found

    def widths(self) -> Site:
        """With what each width would lose, measured at the first call."""
        return self._widths

    @cached_property
    def solver(self) -> Nested | None:
        """Refits the output layer; None where the MLP is not known or cannot be narrowed."""
        paths = self.block.mlp_paths
        if paths is None or not _narrowable(self.block):
            return None
        layer = output_layer(self.down)
        train = joined([rows for one in self.seen for rows in one.rows[: len(self.trial.fitted)]])
        inputs = with_constant(train.hidden, layer) * train.weight.sqrt()[:, None]
        upper = inputs.new_zeros(inputs.shape[1], inputs.shape[1])
        add_gram(upper, inputs)
        gram = mirrored(upper)
        order = (gram.diagonal()[: paths.hidden].sqrt() * layer[: paths.hidden].norm(dim=1)).argsort(descending=True)
        return Nested(gram, order, bias=len(layer) > paths.hidden, ridge=RIDGE)

    @cached_property
    def _plain(self) -> Site:
        return Site(self.users, self.block.mlp_paths, **self._saved)

    @cached_property
    def _widths(self) -> Site:
        paths, solver = self.block.mlp_paths, self.solver
        if paths is None or solver is None:
            return self._plain
        axes = hidden_axes(self.trial.model, paths)
        layer = output_layer(self.down)
        held = joined([rows for one in self.seen for rows in one.rows[len(self.trial.fitted) :]])
        wanted = {share: units_kept(paths.hidden, share) for share in SHARES}
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
        tokens = self.before[0].flatten(0, -2).shape[0] // self.trial.batches[0].items
        numbers = sum(a.tensor.numel() for a in axes if a.tensor.dim() > 1)
        return Site(
            self.users, paths, solver.rows[solver.bias :], self._tried(layer, layers, wanted, errors), errors,
            unit_parameters=sum(axis.tensor.numel() for axis in axes) // paths.hidden,
            unit_macs=len(self.users) * tokens * numbers // paths.hidden,
            **self._saved,
        )  # fmt: skip

    def _tried(
        self, layer: Tensor, layers: dict[int, Tensor], wanted: dict[float, int], errors: dict[float, float]
    ) -> dict[float, float]:
        """The loss in the end at one share, measured, and at the others in proportion to the error at this place."""
        if TRIED not in errors or errors[TRIED] <= 0:
            return dict.fromkeys(errors, 0.0)
        put_output_layer(self.down, layers[wanted[TRIED]])
        try:
            loss = self.trial.end(self.users[0], self.seen[0].given)
        finally:
            put_output_layer(self.down, layer)
        return {share: loss * error / errors[TRIED] for share, error in errors.items()}

    @cached_property
    def _saved(self) -> dict[str, Any]:
        """What is saved by sharing the MLP and by dropping the block."""
        block, blocks = self.block, self.trial.parts.blocks
        elsewhere = {id(p) for other in blocks if other.index != block.index for p in other.module.parameters()}
        own = [p for p in block.module.parameters() if id(p) not in elsewhere]
        given = self.seen[0].given[0]
        item = self.trial.batches[0].first()
        call = self.trial.walk.enter(item, block.index, None if given is None else given[:1])
        return {
            "mlp_parameters": 0 if block.mlp is None else sum(p.numel() for p in block.mlp.parameters()),
            "block_parameters": sum(p.numel() for p in own),
            "block_macs": count(_Called(block.module), {"args": call.args, "kwargs": dict(call.kwargs)}).macs,
        }


def _narrowable(block: Block) -> bool:
    try:
        check_narrowable(block)
    except SurgeryError:
        return False
    return True


class _Called(nn.Module):
    """A block that takes its call as two values, as a counter can give it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self.block(*args, **kwargs)
