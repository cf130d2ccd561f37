"""What every adapter shares: from a block's module paths to its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from torch import nn

from deadweight.anatomy.parts import Block, MlpOfBlock, MlpPaths, linear_shape

# How the field names the linear layers of an MLP: what reads the stream, what writes to it.
MLP_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("fc1_g", "fc1_x"), "fc2"),
    (("fc1",), "fc2"),
    (("c_fc",), "c_proj"),
    (("fc_in",), "fc_out"),
    (("0",), "3"),
    (("weights_in",), "weights_out"),
    (("gate_up_proj",), "down_proj"),
    (("up_proj",), "down_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("w1", "w3"), "w2"),
    (("w1",), "w2"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
)


class Names(TypedDict):
    """Candidate names of a block's parts, in the order they are tried."""

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    norms: tuple[str, ...]


def child(module: nn.Module, path: str) -> nn.Module | None:
    """The submodule at `path`, or None."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def is_linear(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def mlp_paths(path: str, mlp: nn.Module, names: tuple[Sequence[str], str] | None = None) -> MlpPaths | None:
    """The linear layers of `mlp`, whose absolute path is `path`; None when its layers carry no known names."""
    for up, down in [names] if names else MLP_NAMES:
        layers = [child(mlp, name) for name in (*up, down)]
        if all(is_linear(layer) for layer in layers):
            break
    else:
        return None
    hidden = linear_shape(layers[-1])[0]  # type: ignore[arg-type]  # is_linear held
    widths = [linear_shape(layer)[1] for layer in layers[:-1]]  # type: ignore[arg-type]
    inner = tuple(
        f"{path}.{name}"
        for name, part in mlp.named_modules()
        if name
        and part not in layers
        and any(tuple(weight.shape) == (hidden,) for weight in part.parameters(recurse=False))
    )
    return MlpPaths(
        path=path,
        up=tuple(f"{path}.{name}" for name in up),
        down=f"{path}.{down}",
        hidden=hidden,
        inner=inner,
        packed=len(up) == 1 and widths[0] == 2 * hidden,
    )


def describe_block(
    root: nn.Module,
    index: int,
    path: str,
    *,
    attention: Iterable[str],
    mlp: Iterable[str],
    norms: Iterable[str],
    names: tuple[Sequence[str], str] | None = None,
) -> Block:
    """A block from candidate names of its parts, the first that exists taken."""
    block = root.get_submodule(path)
    attention_name = next((name for name in attention if child(block, name) is not None), None)
    mlp_name = next((name for name in mlp if child(block, name) is not None), None)
    mlp_module = child(block, mlp_name) if mlp_name else _own_layers(block)
    return Block(
        index=index,
        path=path,
        module=block,
        attention=child(block, attention_name) if attention_name else None,
        attention_path=f"{path}.{attention_name}" if attention_name else None,
        mlp=mlp_module,
        mlp_paths=mlp_paths(f"{path}.{mlp_name}" if mlp_name else path, mlp_module, names) if mlp_module else None,
        norms=tuple(part for name in norms if (part := child(block, name)) is not None),
    )


def _own_layers(block: nn.Module) -> nn.Module | None:
    """The MLP of a block that holds its layers itself."""
    activation = getattr(block, "activation_fn", None)
    if is_linear(child(block, "fc1")) and is_linear(child(block, "fc2")) and isinstance(activation, nn.Module):
        return MlpOfBlock.of(block, "fc1", "fc2", activation)
    return None


def first_layer(root: nn.Module, container: str) -> tuple[str, nn.Module] | None:
    """The first layer with weights outside of the blocks at `container`: most likely what makes vectors of inputs."""
    for name, module in root.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding) and not name.startswith(f"{container}."):
            return name, module
    return None


def children_paths(root: nn.Module, path: str) -> list[str]:
    """Absolute paths of the children of the container at `path`, in order."""
    return [f"{path}.{name}" if path else name for name, _ in root.get_submodule(path).named_children()]
