"""`load(source)`: a source string becomes a module in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deadweight.errors import InputError, SourceError
from deadweight.models.memory_check import require_room
from deadweight.models.provenance import origin, set_origin
from deadweight.registry import Registry, did_you_mean
from deadweight.source import Source, parse_source

Loader = Callable[..., nn.Module]

MODEL_SOURCES: Registry[Loader] = Registry("model source")
MODEL_SOURCES.add("timm", "deadweight.models.vision:load_timm")
MODEL_SOURCES.add("torchvision", "deadweight.models.vision:load_torchvision")
MODEL_SOURCES.add("hf", "deadweight.models.hub:load_hub")
MODEL_SOURCES.add("gguf", "deadweight.models.language:load_gguf")
MODEL_SOURCES.add("embedded", "deadweight.models.embedded:load_embedded")
MODEL_SOURCES.add("file", "deadweight.surgery.saved:load_saved")


def model_source(text: str) -> Source:
    """Parse a model source and check its scheme; raises :class:`SourceError` with what is known."""
    source = parse_source(text)
    if source.scheme not in MODEL_SOURCES:
        raise SourceError(
            f"unknown kind of model source {source.scheme!r} in {text!r}",
            expected=f"one of {', '.join(f'{name}:' for name in MODEL_SOURCES.names())}",
            cure=did_you_mean(source.scheme, MODEL_SOURCES.names()),
        )
    return source


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """``"bfloat16"`` or ``torch.bfloat16`` as a dtype; unknown names raise :class:`InputError`."""
    if name is None or isinstance(name, torch.dtype):
        return name
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(
            f"unknown dtype {name!r}",
            expected="float32, bfloat16, float16 or float64",
            cure=did_you_mean(name, ["float32", "bfloat16", "float16", "float64"]),
        )
    return found


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the accelerator if this machine has one, else the CPU."""
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError as problem:
            raise InputError(
                f"unknown device {device!r}", expected="cpu, cuda, cuda:0, mps …", cure="run `deadweight doctor`"
            ) from problem
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def load(
    source: str,
    *,
    pretrained: bool | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A model from its source string, in eval mode.

    Parameters
    ----------
    source:
        ``timm:NAME``, ``torchvision:NAME``, ``hf:REPO[@REV]``, ``hf:FOLDER``, ``gguf:PATH``, ``file:FOLDER``
        (saved by :func:`deadweight.save`) or ``embedded:NAME``. ``timm:`` and ``torchvision:`` mean pretrained
        weights; ``?pretrained=false`` (or ``pretrained=False``) gives random ones.
    dtype, device:
        Cast and moved after loading; by default as loaded, on the CPU.
    kwargs:
        Passed to the family's own constructor (for ``file:``: ``model=factory()`` for a class of your own).

    Raises
    ------
    SourceError
        An unknown kind or name, or weights that cannot be had; the message names the ways out.
    MachineError
        The weights do not fit into memory.
    """
    parsed = model_source(source)
    if "pretrained" in parsed.options and pretrained is None:
        pretrained = parsed.flag("pretrained", True)
    require_room(parsed, **kwargs)
    model = MODEL_SOURCES.get(parsed.scheme)(parsed, pretrained=pretrained, **kwargs)
    if origin(model) is None:
        plain = {name: value for name, value in kwargs.items() if isinstance(value, (str, int, float, bool, list))}
        set_origin(model, source, plain if pretrained is None else {**plain, "pretrained": pretrained})
    wanted = torch_dtype(dtype)
    if wanted is not None:
        model = model.to(wanted)
    if device is not None:
        model = model.to(pick_device(device))
    return model.eval()
