"""The two surgeries of arXiv 2512.01059: blocks that share an MLP (or more), and MLPs with fewer hidden units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, MlpPaths, anatomy
from deadweight.anatomy.parts import MlpOfBlock
from deadweight.errors import InputError, SurgeryError
from deadweight.models.unwrap import unwrapped
from deadweight.registry import did_you_mean
from deadweight.surgery.calibration import calibration, require_numbers
from deadweight.surgery.groups import Groups, groups_of
from deadweight.surgery.importance import CHOICES, best, unit_scores
from deadweight.surgery.log import copy_unless_inplace, record
from deadweight.surgery.masks import copied
from deadweight.surgery.merge import MERGES, NEEDS_LAYERS, merge_mlps
from deadweight.surgery.narrow import check_narrowable, narrow, units_kept
from deadweight.surgery.refit import check_refit, refit_outputs
from deadweight.surgery.sharing import check_sharable, parts_of, share_weights, shares
from deadweight.surgery.widths import note_width

Module = TypeVar("Module", bound=nn.Module)
SHARES_MLP = {"mlp", "block"}
SPOKEN = {"attention": "attention", "block": "all their weights"}


def group_mlps(
    model: Module,
    size: int = 2,
    *,
    pattern: str | Sequence[Sequence[int]] = "adjacent",
    parts: str | Sequence[str] = "mlp",
    merge: str = "first",
    scale: float = 1.0,
    refit: str | None = None,
    batches: Iterable[Any] | None = None,
    inplace: bool = False,
) -> Module:
    """Let groups of blocks share one MLP; each block keeps its own norms, attention and drop-path.

    With `parts` they share attention too, or instead, or all their weights.

    GroupedMLP of arXiv 2512.01059 is ``group_mlps(fresh_model, scale=2**-0.5)``; for a trained model
    ``group_mlps(model, merge="union", refit="stream", batches=images)`` loses least.

    Parameters
    ----------
    size:
        Blocks a group; the last group may be smaller.
    pattern:
        ``adjacent`` | ``strided`` | ``mirrored``, or the groups as lists of block indices.
    parts:
        ``mlp``, ``attention``, ``block`` (all weights of a block, norms and layer scale too), or several of them.
    merge:
        ``first``: the group's first MLP is kept; ``mean``: the average of its members' weights; ``align``: the
        average once the hidden units of each member are matched to the first's; ``union``: of each member its most
        important units (by activation where there are `batches`, else by weight), side by side. Of other parts than
        MLPs the first is kept, or with ``mean`` the average.
    scale:
        Multiplies fc1.weight, fc1.bias and fc2.weight of every shared MLP (gate, up and down of a gated one, and
        input biases), never the output bias. A group of one is left alone.
    refit:
        Fit the MLP output layer of every block that shares, a shared one to all of its blocks jointly
        (``surgery/refit.py``): ``"layer"`` aims at their own old outputs, ``"stream"`` at the original's residual
        stream, so that it also repairs what shared attention broke.
    batches:
        Calibration inputs for that, without labels.

    Raises
    ------
    SurgeryError
        MLPs that cannot be shared, naming the blocks; blocks that share already but would be separated.

    Examples
    --------
    >>> import deadweight as dw
    >>> shared = dw.group_mlps(dw.load("embedded:digits-vit"), 2, scale=2**-0.5)  # the paper's variant
    >>> shared.blocks[0].mlp.fc1 is shared.blocks[1].mlp.fc1
    True
    """
    wanted = _check_options(parts, merge, scale, refit)
    model = unwrapped(model)
    blocks = anatomy(model).blocks
    groups = groups_of(len(blocks), size, pattern)
    _check_groups(blocks, groups, wanted, inside=scale != 1 or merge in NEEDS_LAYERS or refit is not None)
    if merge in NEEDS_LAYERS:
        require_numbers(model, f"merge={merge!r}")
    inputs = calibration(model, batches, f"refit={refit!r}") if refit or batches is not None else []
    scores = {}
    if merge == "union":
        known = [paths for block in blocks if (paths := block.mlp_paths) is not None]
        scores = unit_scores(model, known, "activation" if inputs else "weight", inputs)
    original = copied(model) if inplace and refit else model
    model = copy_unless_inplace(model, inplace)
    blocks = anatomy(model).blocks
    for group in groups:
        members = [blocks[index] for index in group]
        if SHARES_MLP & set(wanted):
            _share(model, members, merge, scale, scores)
        for part in wanted:
            if part != "mlp" and len(group) > 1:
                share_weights(members, part, merge)
    if refit:
        shared = [index for group in groups if len(group) > 1 for index in group]
        refit_outputs(model, original, inputs, target=refit, blocks=shared)
    explicit = pattern if isinstance(pattern, str) else [[int(index) for index in group] for group in pattern]
    extra: dict[str, Any] = {} if refit is None else {"refit": refit}
    if wanted != ("mlp",):
        extra["parts"] = list(wanted)
    record(model, "group_mlps", size=int(size), pattern=explicit, merge=merge, scale=float(scale), **extra)
    return model


def _check_options(parts: str | Sequence[str], merge: str, scale: float, refit: str | None) -> tuple[str, ...]:
    """The parts to be shared; what does not fit together is refused."""
    wanted = parts_of(parts)
    if merge not in MERGES:
        raise InputError(
            f"unknown merge {merge!r}", expected=f"one of {', '.join(MERGES)}", cure=did_you_mean(merge, list(MERGES))
        )
    if not 0 < scale < float("inf"):
        raise InputError(f"scale {scale}", expected="a positive number", cure="the paper's is 2**-0.5")
    if not SHARES_MLP & set(wanted) and (scale != 1 or merge in NEEDS_LAYERS):
        raise InputError(
            f"scale={scale:g}, merge={merge!r} for {', '.join(wanted)} alone",
            expected="those for shared MLPs",
            cure='parts=("mlp", "attention") shares both',
        )
    check_refit(refit)
    return wanted


def _check_groups(blocks: Sequence[Block], groups: Groups, parts: Sequence[str], *, inside: bool) -> None:
    for group in groups:
        members = [blocks[index] for index in group]
        if SHARES_MLP & set(parts):
            _check_group(members, inside=inside)
        for part in parts:
            if part != "mlp" and len(group) > 1:
                check_sharable(members, part)
    for part in parts:
        if part in SHARES_MLP:
            _check_kept_together(blocks, groups, "an MLP", _same_mlp)
        if part != "mlp":
            _check_kept_together(blocks, groups, SPOKEN[part], partial(shares, part=part))


def shallow_mlps(
    model: Module,
    keep: float | Sequence[float] = 0.5,
    *,
    by: str = "first",
    refit: str | None = None,
    batches: Iterable[Any] | None = None,
    inplace: bool = False,
) -> Module:
    """Keep max(1, floor(keep · hidden + ½)) hidden units of every MLP.

    ShallowMLP of arXiv 2512.01059 is ``shallow_mlps(fresh_model)``; for a trained model
    ``shallow_mlps(model, by="activation", refit="stream", batches=images)`` loses least. An MLP that blocks share is
    narrowed once.

    Parameters
    ----------
    keep:
        Share of the units kept, in (0, 1]: one for all, or one per block.
    by:
        ``first``: the first units, as the paper does; ``weight``: those with the largest weights; ``activation``:
        those that do most on `batches`.
    refit:
        Fit the output layer of every narrowed MLP (``surgery/refit.py``): ``"layer"`` aims at its own old output,
        ``"stream"`` at the original's residual stream.
    batches:
        Calibration inputs for both, without labels: a few dozen images, or several times as many tokens as units.

    Raises
    ------
    SurgeryError
        An MLP that cannot be narrowed, naming its block.

    Examples
    --------
    >>> import deadweight as dw
    >>> dw.shallow_mlps(dw.load("embedded:digits-vit"), 0.5).blocks[0].mlp.fc1.out_features
    128
    """
    model = unwrapped(model)
    blocks = anatomy(model).blocks
    shares = _shares(keep, blocks)
    if by not in CHOICES:
        raise InputError(
            f"unknown choice of units {by!r}",
            expected=f"one of {', '.join(CHOICES)}",
            cure=did_you_mean(by, list(CHOICES)),
        )
    check_refit(refit)
    narrowed = [block for block, share in zip(blocks, shares, strict=True) if share < 1]
    for block in blocks if len(narrowed) == len(blocks) else narrowed:
        check_narrowable(block)
    asked = f"refit={refit!r}" if refit else "by='activation'"
    inputs = calibration(model, batches, asked) if refit or by == "activation" else []
    original = copied(model) if inplace and refit else model
    distinct = {id(block.mlp): (block.mlp_paths, shares[block.index]) for block in narrowed}
    scores = unit_scores(model, [paths for paths, _ in distinct.values() if paths is not None], by, inputs)
    model = copy_unless_inplace(model, inplace)
    parts = anatomy(model)
    changes: set[tuple[int, int]] = set()
    for paths, share in distinct.values():
        assert paths is not None  # checked above
        count = units_kept(paths.hidden, share)
        narrow(model, paths, best(scores[paths.down], count))
        changes.add((paths.hidden, count))
    if len(narrowed) == len(blocks):
        note_width(model, parts.width, changes)
    if refit:
        refit_outputs(model, original, inputs, target=refit, blocks=[block.index for block in narrowed])
    extra = {} if refit is None else {"refit": refit}
    record(model, "shallow_mlps", keep=_as_given(keep), by=by, **extra)
    return model


def _as_given(keep: float | Sequence[float]) -> float | list[float]:
    return float(keep) if isinstance(keep, (int, float)) else [float(share) for share in keep]


def _shares(keep: float | Sequence[float], blocks: Sequence[Block]) -> list[float]:
    """The share of each block, checked; blocks that share an MLP must agree."""
    given = _as_given(keep)
    shares = given if isinstance(given, list) else [given] * len(blocks)
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"keep {share}", expected="a share in (0, 1]", cure="keep=0.5 keeps half of the units")
    if len(shares) != len(blocks):
        raise InputError(f"{len(shares)} shares for {len(blocks)} blocks", expected="one for all, or one per block")
    first: dict[int, Block] = {}
    for block in blocks:
        other = first.setdefault(id(block.mlp), block)
        if block.mlp is not None and shares[other.index] != shares[block.index]:
            raise SurgeryError(
                f"blocks {other.index} and {block.index} share an MLP and were given the shares "
                f"{shares[other.index]:g} and {shares[block.index]:g}",
                expected="one share for blocks that share",
            )
    return shares


def _check_group(group: Sequence[Block], *, inside: bool) -> None:
    for block in group:
        if block.mlp is None:
            raise SurgeryError(f"block {block.index} ({block.path}) has no MLP that could be shared")
        if inside and len(group) > 1 and block.mlp_paths is None:
            raise SurgeryError(
                f"block {block.index} ({block.path}): the layers of its MLP are not known",
                expected="an MLP of two or three linear layers",
                cure="share it as it is: merge='first' or 'mean', scale=1, no refit",
            )
    first = group[0]
    for block in group[1:]:
        if _shapes(block.mlp) != _shapes(first.mlp) or type(block.mlp) is not type(first.mlp):
            raise SurgeryError(
                f"blocks {first.index} and {block.index} cannot share an MLP: "
                f"{_described(first)} and {_described(block)}",
                expected="MLPs of equal kind and width in every group",
                cure="give groups of equal width, for example pattern=[[0, 1], [2, 3]]",
            )


def _same_mlp(one: Block, two: Block) -> bool:
    return one.mlp is not None and one.mlp is two.mlp


def _check_kept_together(
    blocks: Sequence[Block], groups: Groups, part: str, together: Callable[[Block, Block], bool]
) -> None:
    """Blocks that share already must stay in one group: to part them would silently undo a surgery."""
    where = {index: number for number, group in enumerate(groups) for index in group}
    for one, two in combinations(blocks, 2):
        if where[one.index] != where[two.index] and together(one, two):
            raise SurgeryError(
                f"blocks {one.index} and {two.index} share {part} already, and the new groups would separate them",
                expected="groups that contain the existing ones whole",
                cure="group the original model instead",
            )


def _share(model: nn.Module, group: Sequence[Block], merge: str, scale: float, scores: Mapping[str, Tensor]) -> None:
    distinct = {id(block.mlp): block for block in group}
    members = [module for block in distinct.values() if (module := block.mlp) is not None]
    if len(members) < 2:
        return
    merge_mlps(model, members, [block.mlp_paths for block in distinct.values()], merge, scores)
    if scale != 1:
        assert group[0].mlp_paths is not None  # checked before
        _scale(model, group[0].mlp_paths, scale)
    for block in group[1:]:
        if isinstance(members[0], MlpOfBlock):
            members[0].put_into(block.module)
            continue
        name = next(name for name, part in block.module.named_modules(remove_duplicate=False) if part is block.mlp)
        owner, _, leaf = name.rpartition(".")
        setattr(block.module.get_submodule(owner), leaf, members[0])


@torch.no_grad()
def _scale(model: nn.Module, paths: MlpPaths, scale: float) -> None:
    for name in (*paths.up, paths.down):
        layer: Any = model.get_submodule(name)
        layer.weight.mul_(scale)
        if name != paths.down and layer.bias is not None:
            layer.bias.mul_(scale)


def _shapes(module: nn.Module | None) -> dict[str, tuple[int, ...]]:
    return {} if module is None else {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _described(block: Block) -> str:
    width = f" of {block.mlp_paths.hidden} units" if block.mlp_paths else ""
    outputs = next(iter(_shapes(block.mlp).values()), ())
    return f"{type(block.mlp).__name__}{width} {outputs}"
