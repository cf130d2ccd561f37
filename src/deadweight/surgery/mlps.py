"""The two surgeries of arXiv 2512.01059: blocks that share an MLP, and MLPs with fewer hidden units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, MlpPaths, anatomy
from deadweight.errors import InputError, SurgeryError
from deadweight.registry import did_you_mean
from deadweight.surgery.groups import Groups, groups_of
from deadweight.surgery.log import patient, record
from deadweight.surgery.narrow import check_narrowable, first_units, heaviest_units, narrow, units_kept
from deadweight.surgery.widths import note_width

Module = TypeVar("Module", bound=nn.Module)
MERGES = ("first", "mean")
CHOOSERS: dict[str, Callable[[nn.Module, MlpPaths, int], Tensor]] = {"first": first_units, "weight": heaviest_units}


def group_mlps(
    model: Module,
    size: int = 2,
    *,
    pattern: str | Sequence[Sequence[int]] = "adjacent",
    merge: str = "first",
    scale: float = 1.0,
    inplace: bool = False,
) -> Module:
    """Let groups of blocks share one MLP; each block keeps its own norms, attention and drop-path.

    GroupedMLP of arXiv 2512.01059 is ``group_mlps(fresh_model, scale=2**-0.5)``.

    Parameters
    ----------
    size:
        Blocks a group; the last group may be smaller.
    pattern:
        ``adjacent`` | ``strided`` | ``mirrored``, or the groups as lists of block indices.
    merge:
        ``first``: the group's first MLP is kept; ``mean``: the average of its members' weights.
    scale:
        Multiplies fc1.weight, fc1.bias and fc2.weight of every shared MLP (gate, up and down of a gated one, and
        input biases), never the output bias. A group of one is left alone.

    Raises
    ------
    SurgeryError
        MLPs that cannot be shared, naming the blocks; blocks that share already but would be separated.
    """
    if merge not in MERGES:
        raise InputError(f"unknown merge {merge!r}", expected="first or mean", cure=did_you_mean(merge, list(MERGES)))
    if not 0 < scale < float("inf"):
        raise InputError(f"scale {scale}", expected="a positive number", cure="the paper's is 2**-0.5")
    blocks = anatomy(model).blocks
    groups = groups_of(len(blocks), size, pattern)
    for group in groups:
        _check_group([blocks[index] for index in group], scaled=scale != 1)
    _check_kept_together(blocks, groups)
    model = patient(model, inplace)
    blocks = anatomy(model).blocks
    for group in groups:
        _share(model, [blocks[index] for index in group], merge, scale)
    explicit = pattern if isinstance(pattern, str) else [[int(index) for index in group] for group in pattern]
    record(model, "group_mlps", size=int(size), pattern=explicit, merge=merge, scale=float(scale))
    return model


def shallow_mlps(model: Module, keep: float = 0.5, *, by: str = "first", inplace: bool = False) -> Module:
    """Keep max(1, floor(keep · hidden + ½)) hidden units of every MLP.

    ShallowMLP of arXiv 2512.01059 is ``shallow_mlps(fresh_model)``. An MLP that blocks share is narrowed once.

    Parameters
    ----------
    keep:
        Share of the units kept, in (0, 1].
    by:
        ``first``: the first units, as the paper does; ``weight``: those with the largest weights.

    Raises
    ------
    SurgeryError
        An MLP that cannot be narrowed, naming its block.
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep {keep}", expected="a share in (0, 1]", cure="keep=0.5 keeps half of the units")
    if by not in CHOOSERS:
        raise InputError(
            f"unknown choice of units {by!r}", expected="first or weight", cure=did_you_mean(by, list(CHOOSERS))
        )
    for block in anatomy(model).blocks:
        check_narrowable(block)
    model = patient(model, inplace)
    parts = anatomy(model)
    distinct = {id(block.mlp): block.mlp_paths for block in parts.blocks}
    changes: set[tuple[int, int]] = set()
    for paths in distinct.values():
        assert paths is not None  # checked above
        count = units_kept(paths.hidden, keep)
        narrow(model, paths, CHOOSERS[by](model, paths, count))
        changes.add((paths.hidden, count))
    note_width(model, parts.width, changes)
    record(model, "shallow_mlps", keep=float(keep), by=by)
    return model


def _check_group(group: Sequence[Block], *, scaled: bool) -> None:
    for block in group:
        if block.mlp is None:
            raise SurgeryError(f"block {block.index} ({block.path}) has no MLP that could be shared")
        if scaled and len(group) > 1 and block.mlp_paths is None:
            raise SurgeryError(
                f"block {block.index} ({block.path}): the layers of its MLP are not known, so it cannot be scaled",
                expected="an MLP of two or three linear layers",
                cure="share without scaling: scale=1",
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


def _check_kept_together(blocks: Sequence[Block], groups: Groups) -> None:
    """Blocks that share already must stay in one group: to part them would silently undo a surgery."""
    where: dict[int, tuple[int, int]] = {}
    for number, group in enumerate(groups):
        for index in group:
            other, at = where.setdefault(id(blocks[index].mlp), (number, index))
            if other != number:
                raise SurgeryError(
                    f"blocks {at} and {index} share an MLP already, and the new groups would separate them",
                    expected="groups that contain the existing ones whole",
                    cure="group the original model instead",
                )


def _share(model: nn.Module, group: Sequence[Block], merge: str, scale: float) -> None:
    keeper = group[0].mlp
    others = {id(block.mlp): block.mlp for block in group if block.mlp is not keeper}
    if keeper is None or not others:
        return
    if merge == "mean":
        _average(keeper, [module for module in others.values() if module is not None])
    if scale != 1:
        assert group[0].mlp_paths is not None  # checked before
        _scale(model, group[0].mlp_paths, scale)
    for block in group[1:]:
        name = next(name for name, part in block.module.named_modules(remove_duplicate=False) if part is block.mlp)
        owner, _, leaf = name.rpartition(".")
        setattr(block.module.get_submodule(owner), leaf, keeper)


@torch.no_grad()
def _average(keeper: nn.Module, others: Sequence[nn.Module]) -> None:
    states = [module.state_dict() for module in others]
    for name, own in keeper.state_dict().items():
        if own.is_floating_point():
            total = own.double()
            for state in states:
                total = total + state[name].double()
            own.copy_(total / (1 + len(states)))


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
