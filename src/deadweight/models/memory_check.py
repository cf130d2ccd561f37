"""Whether a model fits into memory, asked before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deadweight.errors import MachineError
from deadweight.models.free_memory import free_memory
from deadweight.source import Source

MARGIN = 1.1  # what reading the weights takes besides the weights


def require_room(source: Source, dtype: torch.dtype | None = None, **options: Any) -> None:
    """Refuse a model whose weights are larger than the free memory, of the machine or of the container.

    Parameters
    ----------
    source:
        Of any kind; where its size cannot be told without reading it, nothing is refused.
    dtype:
        In which the weights are read; float32 by default. A saved model's are read as they were saved.
    options:
        What the family's constructor will be given.

    Raises
    ------
    MachineError
        The weights do not fit; the message says both sizes.
    """
    needed = weight_bytes(source, dtype or torch.float32, **options)
    free = free_memory()
    if needed is not None and needed * MARGIN > free:
        raise MachineError(
            f"{source.text!r} needs {_gib(needed)} for its weights, and {_gib(free)} are free",
            expected="a model that fits into memory",
            cure="end other programs, or take a machine with more memory; load_lm reads hf: models in the dtype it is "
            "given, so that bfloat16 halves what they need",
        )


def weight_bytes(source: Source, dtype: torch.dtype = torch.float32, **options: Any) -> int | None:
    """What parameters and buffers take once they are read; None where that cannot be told cheaply."""
    if source.scheme == "file":
        with suppress(OSError):  # a missing file is told by the loader
            return (Path(source.name).expanduser() / "model.safetensors").stat().st_size
        return None
    count = _COUNTS.get(source.scheme)
    if count is None:
        return None
    with suppress(Exception):  # whatever is wrong with the source, its loader says it better
        return count(source, **options) * dtype.itemsize
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
    from deadweight.models.hub import build, config_of

    config = config_of(source, **options)
    return _numbers(lambda: build(config))


def _gguf(source: Source, **options: Any) -> int:
    from gguf import GGUFReader

    from deadweight.models.gguf_parts import parts_of

    parts = parts_of(Path(source.name).expanduser(), source.text)
    return sum(int(tensor.n_elements) for part in parts for tensor in GGUFReader(part).tensors)


_COUNTS: dict[str, Callable[..., int]] = {"timm": _timm, "torchvision": _torchvision, "hf": _hub, "gguf": _gguf}


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
