"""Narrowing one MLP to some of its hidden units."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy.parts import Block, MlpPaths, is_transposed, linear_shape
from deadweight.errors import SurgeryError

# What MLP modules of timm and transformers call their number of hidden units.
_WIDTH_NAMES = ("intermediate_size", "hidden_features", "inner_dim", "ffn_dim", "mlp_dim", "hidden")
_NORM_SHAPES = ("normalized_shape", "num_features", "hidden_size")


def units_kept(hidden: int, keep: float) -> int:
    """max(1, floor(keep · hidden + ½))."""
    return max(1, math.floor(keep * hidden + 0.5))


def first_units(model: nn.Module, paths: MlpPaths, count: int) -> Tensor:
    """The first `count` units, as in arXiv 2512.01059 (ShallowMLP)."""
    return torch.arange(count)


def heaviest_units(model: nn.Module, paths: MlpPaths, count: int) -> Tensor:
    """The units of the largest weight: the product of the norms of what each reads and what it writes (ours).

    A gated unit has two input rows; both norms enter the product, because either can silence it. The product does
    not change when a unit's input is scaled up and its output down alike.
    """
    down = model.get_submodule(paths.down)
    weight: Any = down.weight
    score = (weight if is_transposed(down) else weight.T).detach().double().norm(dim=1)
    for name in paths.up:
        rows = _rows(model.get_submodule(name)).double().norm(dim=1)
        score = score * rows.reshape(-1, paths.hidden).prod(dim=0)
    order = torch.sort(score, descending=True, stable=True).indices
    return order[:count].sort().values.cpu()


def check_narrowable(block: Block) -> None:
    """Refuse an MLP that holds a part of hidden width nobody knows how to narrow."""
    paths = block.mlp_paths
    if block.mlp is None or paths is None:
        raise SurgeryError(
            f"block {block.index} ({block.path}): no MLP with known linear layers was found",
            expected="an MLP of two or three linear layers",
            cure="give its layers with dw.anatomy(model, paths=…) to see what is found",
        )
    known = [name.removeprefix(f"{paths.path}.") for name in (*paths.up, paths.down)]
    inner = [name.removeprefix(f"{paths.path}.") for name in paths.inner]
    for name, weight in [*block.mlp.named_parameters(), *block.mlp.named_buffers()]:
        owner = name.rpartition(".")[0]
        if owner in known or paths.hidden not in weight.shape:
            continue
        if owner not in inner or tuple(weight.shape) != (paths.hidden,):
            raise SurgeryError(
                f"block {block.index} ({paths.path}): cannot narrow {name}, of shape {tuple(weight.shape)}",
                expected="linear layers, with at most a norm between them",
                cure="leave this model's width, or share its MLPs with group_mlps",
            )


def narrow(model: nn.Module, paths: MlpPaths, units: Tensor) -> None:
    """Keep only `units` of the MLP at `paths`: rows of what reads, columns of what writes, entries of norms."""
    count = len(units)
    for name in paths.up:
        layer = model.get_submodule(name)
        halves = linear_shape(layer)[1] // paths.hidden
        rows = torch.cat([units + half * paths.hidden for half in range(halves)])
        _take(layer, "weight", rows, 1 if is_transposed(layer) else 0)
        _take(layer, "bias", rows, 0)
        _note_shape(layer)
    down = model.get_submodule(paths.down)
    _take(down, "weight", units, 0 if is_transposed(down) else 1)
    _note_shape(down)
    for name in paths.inner:
        norm: Any = model.get_submodule(name)
        for own, _ in list(norm.named_parameters(recurse=False)):
            _take(norm, own, units, 0)
        for own, buffer in list(norm.named_buffers(recurse=False)):
            if tuple(buffer.shape) == (paths.hidden,):
                setattr(norm, own, buffer[units.to(buffer.device)].clone())
        _set_width(norm, _NORM_SHAPES, paths.hidden, count)
    _set_width(model.get_submodule(paths.path), _WIDTH_NAMES, paths.hidden, count)


def _rows(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    rows: Tensor = (weight.T if is_transposed(layer) else weight).detach()
    return rows


def _take(layer: nn.Module, name: str, indices: Tensor, dim: int) -> None:
    old = getattr(layer, name, None)
    if isinstance(old, nn.Parameter):
        kept = old.detach().index_select(dim, indices.to(old.device)).contiguous()
        setattr(layer, name, nn.Parameter(kept, requires_grad=old.requires_grad))


def _note_shape(layer: Any) -> None:
    inputs, outputs = linear_shape(layer)
    if is_transposed(layer):
        layer.nx, layer.nf = inputs, outputs
    else:
        layer.in_features, layer.out_features = inputs, outputs


def _set_width(module: nn.Module, names: tuple[str, ...], old: int, new: int) -> None:
    for name in names:
        value = getattr(module, name, None)
        if value == old and isinstance(value, int):
            setattr(module, name, new)
        elif value == (old,):
            setattr(module, name, (new,))
