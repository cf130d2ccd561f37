"""Whether a model fits into memory, asked before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from deadweight.errors import MachineError
from deadweight.source import Source

MARGIN = 1.1  # what reading the weights takes besides the weights


def require_room(source: Source, dtype: torch.dtype | None = None, **options: Any) -> None:
    """Refuse a model whose weights are larger than the free memory.

    Parameters
    ----------
    source:
        Of any kind; where its size cannot be told without reading it, nothing is refused.
    dtype:
        What the weights will be held in; by default float32, in which they are read.
    options:
        What the family's constructor will be given.

    Raises
    ------
    MachineError
        The weights do not fit; the message says both sizes.
    """
    weights = count_weights(source, **options)
    if weights is None:
        return
    needed = weights * (torch.float32 if dtype is None else dtype).itemsize
    free = psutil.virtual_memory().available
    if needed * MARGIN > free:
        raise MachineError(
            f"{source.text!r} needs {_gib(needed)} for its weights, and {_gib(free)} are free",
            expected="a model that fits into memory",
            cure="load it in bfloat16, end other programs, or take a machine with more memory",
        )


def count_weights(source: Source, **options: Any) -> int | None:
    """How many numbers the model holds; None where that cannot be told cheaply."""
    count = _COUNTS.get(source.scheme)
    if count is None:
        return None
    with suppress(Exception):  # whatever is wrong with the source, its loader says it better
        return count(source, **options)
    return None


def _numbers(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        model = build()
    return sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])


def _timm(source: Source, **options: Any) -> int:
    import timm

    return _numbers(lambda: timm.create_model(source.name.partition(".")[0], pretrained=False, **options))


def _torchvision(source: Source, **options: Any) -> int:
    from torchvision import models

    return _numbers(lambda: models.get_model(source.name, weights=None, **options))


def _hub(source: Source, **options: Any) -> int:
    from deadweight.models.hub import auto_class, config_of

    config = config_of(source)
    return _numbers(lambda: auto_class(config).from_config(config))


def _gguf(source: Source, **options: Any) -> int:
    from gguf import GGUFReader

    return sum(int(tensor.n_elements) for tensor in GGUFReader(source.name).tensors)


def _saved(source: Source, **options: Any) -> int:
    from safetensors import safe_open

    with safe_open(Path(source.name).expanduser() / "model.safetensors", framework="pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # not a mapping
    return sum(torch.Size(size).numel() for size in sizes)


_COUNTS: dict[str, Callable[..., int]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hub,
    "gguf": _gguf,
    "file": _saved,
}


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
