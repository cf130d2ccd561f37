"""Refitting what a cut left: the output layer of each MLP, in closed form, on unlabelled calibration inputs (ours).

After a cut, the layer that writes an MLP's output back is fitted by ridge least squares to what it should have
written, block after block, with the cut model's own stream as input. ``"layer"`` aims at the old MLP's output for that
very input (plus what dropped blocks added); ``"stream"`` at the original model's residual stream at that depth, so
that each block also repairs the error that reached it. A token weighs the inverse of its squared norm in the original's
stream: what follows normalises tokens, and a few of huge norm (attention sinks) would rule a plain fit. The ridge
pulls towards the weights as they are; it is chosen on inputs held out of the fit, and where none lowers the held-out
error the layer stays as it was.

In memory: the residual streams of both models for all inputs, and two Gram matrices a layer; never the hidden units
of more than one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, MlpPaths, anatomy
from deadweight.anatomy.parts import is_transposed, linear_shape
from deadweight.errors import InputError, SurgeryError
from deadweight.registry import did_you_mean
from deadweight.surgery.blockwise import BlockwiseRun, Call
from deadweight.surgery.calibration import Inputs, evaluating
from deadweight.surgery.least_squares import START, Gram, fit
from deadweight.surgery.residual_branch import MlpInputs, ResidualBranch, Seen, output_of

TARGETS = ("layer", "stream")
HELD_OUT = 4  # every fourth image or sequence is held out of the fit


@dataclass(frozen=True)
class Refitted:
    """What became of one output layer.

    blocks:        those that use it.
    ridge:         of the mean of the Gram matrix's diagonal.
    before, after: held-out error as a share of the original's stream (squared), by the layer as it was and refitted.
    kept:          whether the refit lowered it; else the layer stayed as it was.
    """

    blocks: tuple[int, ...]
    ridge: float
    before: float
    after: float
    kept: bool


def check_refit(refit: str | None) -> None:
    """Refuse an unknown target."""
    if refit is not None and refit not in TARGETS:
        raise InputError(
            f"unknown refit {refit!r}", expected="layer, stream or None", cure=did_you_mean(refit, list(TARGETS))
        )


def refit_outputs(
    model: nn.Module,
    original: nn.Module,
    inputs: Sequence[Inputs],
    *,
    target: str,
    blocks: Sequence[int],
    origins: Sequence[int] | None = None,
) -> list[Refitted]:
    """Refit the MLP output layers of `blocks` of `model`, in place, towards `original`.

    Parameters
    ----------
    origins:
        Which block of `original` each block of `model` was; by default they are as many. What blocks dropped after
        one added to the stream is part of what that one should write.

    Raises
    ------
    SurgeryError
        A block without an MLP of known layers, or, for ``"stream"``, one that does not add its MLP's output to the
        stream; the message names the block.
    """
    parts = anatomy(model)
    for index in blocks:
        _paths(parts.blocks[index])
    if not blocks:
        return []
    with evaluating(model, original):
        return _Refit(model, original, inputs, target, sorted(blocks), origins or range(parts.depth)).run()


def _paths(block: Block) -> MlpPaths:
    if block.mlp is None or block.mlp_paths is None:
        raise SurgeryError(
            f"block {block.index} ({block.path}) has no MLP with known linear layers to refit",
            expected="an MLP of two or three linear layers",
            cure="refit=None leaves the weights as they are",
        )
    return block.mlp_paths


@dataclass
class _Batch:
    """Where both models stand with one batch.

    after:    the cut model's stream after its last block, and
    call:     how its next one is called: Swin does something in between.
    teacher:  the original's stream at the end of what the present block stands for.
    own:      the original's stream at the end of that very block, before blocks that were dropped.
    held_out: (B,) which items only judge; None where there are too few to spare one: then the end of each does.
    """

    inputs: Inputs
    after: Tensor
    call: Call
    teacher: Tensor
    own: Tensor
    held_out: Tensor | None


@dataclass
class _Site:
    """One output layer: the blocks that use it, its weights before, and the sums over what they show it."""

    down: Any
    blocks: list[int]
    train: Gram
    held_out: Gram
    weight: Tensor
    bias: Tensor | None
    importance: Tensor | float = 1.0  # (D,) how much a channel of the output counts in the stream
    before: list[Tensor] = field(default_factory=list)  # streams before its first block, where it has several

    @property
    def shared(self) -> bool:
        return len(self.blocks) > 1

    def as_it_was(self, hidden_NI: Tensor) -> Tensor:
        """(N, D) the output by the weights before."""
        out = hidden_NI @ (self.weight if is_transposed(self.down) else self.weight.T)
        return out if self.bias is None else out + self.bias

    def change(self, change_IO: Tensor | None) -> None:
        """The weights before, changed."""
        weight, bias = self.weight, self.bias
        if change_IO is not None:
            scaled = change_IO / torch.as_tensor(self.importance).double().cpu()
            inputs = linear_shape(self.down)[0]
            step = scaled[:inputs] if is_transposed(self.down) else scaled[:inputs].T
            weight = weight + step.to(weight)
            bias = None if bias is None else bias + scaled[inputs].to(bias)
        self.down.weight.copy_(weight)
        if bias is not None:
            self.down.bias.copy_(bias)


class _Refit:
    """One run over the blocks; every batch is at the same block at any time."""

    def __init__(
        self,
        model: nn.Module,
        original: nn.Module,
        inputs: Sequence[Inputs],
        target: str,
        blocks: Sequence[int],
        origins: Sequence[int],
    ) -> None:
        self.original, self.target, self.origins = original, target, list(origins)
        parts, self.old_blocks = anatomy(model), anatomy(original).blocks
        self.ends = [*self.origins[1:], len(self.old_blocks)]
        self.example = inputs[0].first()
        self.cut = BlockwiseRun(model, parts.blocks, self.example)
        self.old = BlockwiseRun(original, self.old_blocks, self.example)
        self.sites = _sites(model, parts.blocks, blocks)
        self.first, self.last = min(self.sites), max(self.sites)
        self.start = START
        total = sum(batch.items for batch in inputs)
        before = 0
        self.batches: list[_Batch] = []
        for batch in inputs:
            self.batches.append(self._begin(batch, before, total))
            before += batch.items

    def run(self) -> list[Refitted]:
        found: list[Refitted] = []
        for index in range(self.first, self.last + 1):
            for batch in self.batches:
                self._advance_teacher(index, batch)
            site = self.sites.get(index)
            if site is None:
                self._advance(index)
                continue
            if site.shared and index == site.blocks[0]:
                site.before = [batch.after for batch in self.batches]
            branch = self._branch(index, site)
            kept = [self._gather(index, site, branch, batch) for batch in self.batches]
            outcome = self._solve(site)
            ended = index == site.blocks[-1]
            if index < self.last:
                self._again(site) if site.shared and ended else self._advance(index, branch, kept)
            if ended:
                found.append(outcome)
                del site.train, site.held_out
        return found

    def _begin(self, inputs: Inputs, before: int, total: int) -> _Batch:
        """Both models at the first block that is refitted. Until then the cut one is the original, unless blocks
        before it went missing."""
        embedded = self.old.enter(inputs, 0).stream
        end = self.ends[self.first - 1] if self.first else 0
        teacher = self._walk(self.old, inputs, 0, end, embedded)
        cut = teacher
        if self.first and self.origins[: self.first + 1] != list(range(self.first + 1)):
            cut = self._walk(self.cut, inputs, 0, self.first, self.cut.enter(inputs, 0).stream)
        call = self.cut.enter(inputs, self.first, cut if self.first else None)
        places = torch.arange(before, before + inputs.items, device=teacher.device)
        held_out = places % HELD_OUT == HELD_OUT - 1 if total >= HELD_OUT else None
        return _Batch(inputs, cut, call, teacher, teacher, held_out)

    def _walk(self, walk: BlockwiseRun, inputs: Inputs, start: int, end: int, before: Tensor) -> Tensor:
        """The stream after block `end` − 1, given the one before block `start`."""
        for index in range(start, end):
            before = walk.run(index, walk.enter(inputs, index, before if index else None))
        return before

    def _advance_teacher(self, index: int, batch: _Batch) -> None:
        begin, own = (self.ends[index - 1] if index else 0), self.origins[index] + 1
        batch.own = self._walk(self.old, batch.inputs, begin, own, batch.teacher)
        batch.teacher = self._walk(self.old, batch.inputs, own, self.ends[index], batch.own)

    def _branch(self, index: int, site: _Site) -> ResidualBranch:
        gap = self.ends[index] > self.origins[index] + 1
        before = self.batches[0].after[:1]
        found = ResidualBranch.of(
            self.cut, index, site.down, self.example, before, required=gap or self.target == "stream"
        )
        if found.scale is not None and index == site.blocks[0]:
            largest = float(found.scale.abs().max())
            site.importance = found.scale.abs().clamp_min(1e-6 * largest)
        return found

    def _gather(
        self, index: int, site: _Site, branch: ResidualBranch, batch: _Batch
    ) -> tuple[Tensor | None, MlpInputs]:
        """Add to the site's sums what a block shows of one batch; what is needed to go on from there."""
        seen = branch.watch(batch.call)
        hidden, output = (value.flatten(0, -2).float() for value in (seen.hidden, seen.output))
        missing = self._missing(index, branch, seen, batch)
        if site.shared:  # the layer may have moved since the first of its blocks
            missing = missing + output - site.as_it_was(hidden)
        weights = batch.teacher.flatten(0, -2).float().square().sum(1).clamp_min(1e-12).reciprocal()
        if batch.inputs.mask is not None:
            weights = weights * batch.inputs.mask.flatten().to(weights)
        held = _judging(batch)
        for gram, rows in ((site.train, ~held), (site.held_out, held)):
            if bool(rows.any()):
                gram.add(hidden[rows], missing[rows] * site.importance, weights[rows])
        return (None if branch.scale is None else branch.rest(seen)), seen.mlp_inputs

    def _missing(self, index: int, branch: ResidualBranch, seen: Seen, batch: _Batch) -> Tensor:
        """(N, D) what the output lacks to be on target."""

        def rows(value: Tensor) -> Tensor:
            return value.flatten(0, -2).float()

        if self.target == "stream":
            assert branch.scale is not None  # required at the branch
            return (rows(batch.teacher) - rows(seen.after)) / _divisor(branch.scale)
        block = self.old_blocks[self.origins[index]]
        assert block.mlp is not None  # the cut model's block has one
        old_down = self.original.get_submodule(_paths(block).down)
        missing = rows(output_of(block.mlp, old_down, seen.mlp_inputs)) - rows(seen.output)
        if batch.teacher is batch.own:
            return missing
        assert branch.scale is not None  # required where blocks were dropped
        return missing + (rows(batch.teacher) - rows(batch.own)) / _divisor(branch.scale)

    def _solve(self, site: _Site) -> Refitted:
        found = fit(site.train, site.held_out, start=self.start)
        self.start = found.start
        site.change(found.change)
        rows = max(site.held_out.rows, 1)
        return Refitted(
            tuple(site.blocks), found.ridge, found.before / rows, found.after / rows, found.change is not None
        )

    def _advance(
        self,
        index: int,
        branch: ResidualBranch | None = None,
        kept: Sequence[tuple[Tensor | None, MlpInputs]] = (),
    ) -> None:
        """The cut model past block `index`, with the weights it has now."""
        for place, batch in enumerate(self.batches):
            rest = kept[place][0] if kept else None
            if branch is not None and rest is not None:
                after = branch.finish(rest, kept[place][1])
            else:
                after = self.cut.run(index, batch.call)
            if index < self.last:
                batch.after, batch.call = after, self.cut.enter(batch.inputs, index + 1, after)

    def _again(self, site: _Site) -> None:
        """From before a shared layer's first block to after its last, with its final weights."""
        for before, batch in zip(site.before, self.batches, strict=True):
            after = self._walk(self.cut, batch.inputs, site.blocks[0], site.blocks[-1] + 1, before)
            batch.after, batch.call = after, self.cut.enter(batch.inputs, site.blocks[-1] + 1, after)
        site.before = []


def _sites(model: nn.Module, all_blocks: Sequence[Block], blocks: Sequence[int]) -> dict[int, _Site]:
    """The site of each block that is refitted; with one that shares its layer come all that share it."""
    downs = [None if block.mlp_paths is None else model.get_submodule(block.mlp_paths.down) for block in all_blocks]
    found: dict[int, _Site] = {}
    for index in blocks:
        down: Any = downs[index]
        if index in found:
            continue
        users = [place for place, other in enumerate(downs) if other is down]
        bias: Tensor | None = getattr(down, "bias", None)
        train, held_out = (
            Gram(*linear_shape(down), bias=bias is not None, device=down.weight.device) for _ in range(2)
        )
        weight = down.weight.detach().clone().float()
        site = _Site(down, users, train, held_out, weight, None if bias is None else bias.detach().clone().float())
        found |= dict.fromkeys(users, site)
    return found


def _judging(batch: _Batch) -> Tensor:
    """(B · tokens,) which tokens of the present block are held out."""
    items, tokens = batch.teacher.flatten(1, -2).shape[:2]
    at = torch.arange(tokens, device=batch.teacher.device)
    last = at >= tokens - max(1, tokens // HELD_OUT)
    held = last.expand(items, -1) if batch.held_out is None else batch.held_out[:, None].expand(-1, tokens)
    return held.flatten()


def _divisor(scale: Tensor) -> Tensor:
    """γ, and ∞ for channels it shuts off."""
    return torch.where(scale.abs() > 1e-6 * scale.abs().max(), scale, torch.inf)
