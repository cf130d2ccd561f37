"""Narrowing one MLP to some of its hidden units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy.parts import Block, MlpPaths, is_transposed, linear_shape
from deadweight.errors import SurgeryError
from deadweight.surgery.masks import masked

# What MLP modules of timm and transformers call their number of hidden units.
_WIDTH_NAMES = ("intermediate_size", "hidden_features", "inner_dim", "ffn_dim", "mlp_dim", "hidden")
_NORM_SHAPES = ("normalized_shape", "num_features", "hidden_size")


def units_kept(hidden: int, keep: float) -> int:
    """max(1, floor(keep · hidden + ½))."""
    return max(1, math.floor(keep * hidden + 0.5))


def check_narrowable(block: Block) -> None:
    """Refuse an MLP that holds a part of hidden width nobody knows how to narrow."""
    paths = block.mlp_paths
    if block.mlp is None or paths is None:
        raise SurgeryError(
            f"block {block.index} ({block.path}): no MLP with known linear layers was found",
            expected="an MLP of two or three linear layers",
            cure="give its layers with dw.anatomy(model, paths=…) to see what is found",
        )
    for name in (*paths.up, paths.down):
        layer = block.module.get_submodule(name.removeprefix(f"{block.path}."))
        if "weight" not in layer._parameters and "weight" not in masked(layer):
            raise SurgeryError(
                f"block {block.index} ({name}): its weight is computed anew in every call",
                expected="linear layers whose weight is a parameter",
                cure="make it permanent: torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm",
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


@dataclass(frozen=True)
class HiddenAxis:
    """A tensor of an MLP with an entry for each hidden unit along `dim`, `halves` times over (gate and up packed)."""

    owner: nn.Module
    name: str
    dim: int
    halves: int

    @property
    def tensor(self) -> Tensor:
        value = getattr(self.owner, self.name)
        assert isinstance(value, Tensor)
        return value.detach()

    def taken(self, units: Tensor) -> Tensor:
        """The entries of `units`, in that order, the halves apart: (…, halves, units, …)."""
        apart = torch.unflatten(self.tensor, self.dim, (self.halves, -1))
        return apart.index_select(self.dim + 1, units.to(apart.device))

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """What :meth:`taken` gave, side by side, the halves packed again."""
        return torch.cat(list(pieces), dim=self.dim + 1).flatten(self.dim, self.dim + 1).contiguous()


def hidden_axes(model: nn.Module, paths: MlpPaths) -> list[HiddenAxis]:
    """Where the hidden units are: rows of what reads, columns of what writes, entries of norms between."""
    found: list[HiddenAxis] = []
    for name in paths.up:
        layer = model.get_submodule(name)
        halves = linear_shape(layer)[1] // paths.hidden
        found.append(HiddenAxis(layer, "weight", 1 if is_transposed(layer) else 0, halves))
        if isinstance(getattr(layer, "bias", None), Tensor):
            found.append(HiddenAxis(layer, "bias", 0, halves))
    down = model.get_submodule(paths.down)
    found.append(HiddenAxis(down, "weight", 0 if is_transposed(down) else 1, 1))
    for name in paths.inner:
        norm = model.get_submodule(name)
        own = [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]
        found += [HiddenAxis(norm, key, 0, 1) for key, value in own if tuple(value.shape) == (paths.hidden,)]
    return found


def narrow(model: nn.Module, paths: MlpPaths, units: Tensor) -> None:
    """Keep only `units` of the MLP at `paths`."""
    count = len(units)
    for axis in hidden_axes(model, paths):
        old, kept = getattr(axis.owner, axis.name), axis.joined([axis.taken(units)])
        parameter = isinstance(old, nn.Parameter)
        setattr(axis.owner, axis.name, nn.Parameter(kept, requires_grad=old.requires_grad) if parameter else kept)
    for name in (*paths.up, paths.down):
        _note_shape(model.get_submodule(name))
    for name in paths.inner:
        _set_width(model.get_submodule(name), _NORM_SHAPES, paths.hidden, count)
    _set_width(model.get_submodule(paths.path), _WIDTH_NAMES, paths.hidden, count)


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
