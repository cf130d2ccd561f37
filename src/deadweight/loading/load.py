"""`load(source)`: a source string becomes a module in eval mode."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from deadweight.errors import DeadweightError, SourceError
from deadweight.loading.checkpoint_source import resolved
from deadweight.loading.checkpoints import WORDS, check_checkpoint, load_checkpoint
from deadweight.loading.sources import MODEL_SOURCES, describe_by_paths, model_options, model_source
from deadweight.models import origin, pick_device, set_origin, torch_dtype
from deadweight.models.memory_check import require_room
from deadweight.source import Source, without
from deadweight.source_options import MODEL_OPTIONS


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
        (saved by :func:`deadweight.save`), ``embedded:NAME``, or ``checkpoint:FILE`` where the file tells its
        architecture. ``timm:`` and ``torchvision:`` mean pretrained weights; ``?pretrained=false`` (or
        ``pretrained=False``) gives random ones and ``?checkpoint=FILE``, for ``hf:`` too, those of a file. What the
        library's factory takes may follow, e.g. ``timm:NAME?num_classes=10&img_size=384``; an option that nothing
        reads is an error. ``python:MODULE:FUNCTION?depth=6`` is what a function of your own returns.
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

    Examples
    --------
    >>> import torch
    >>> model = load("embedded:digits-vit")
    >>> model(torch.zeros(2, 1, 8, 8)).shape, model.training
    (torch.Size([2, 10]), False)
    """
    parsed = resolved(model_source(source))
    check_checkpoint(parsed)
    if "pretrained" in parsed.options and pretrained is None:
        pretrained = parsed.flag("pretrained", True)
    kwargs = {**model_options(parsed), **kwargs}
    require_room(parsed, **kwargs)
    model, kwargs = _built(parsed, pretrained, kwargs)
    if origin(model) is None:
        plain = {name: value for name, value in kwargs.items() if _plain(value)}
        # What is needed to build it again; the file of its weights is not.
        named = (
            without(parsed, "checkpoint", "ema", "strict", "pretrained") if "checkpoint" in parsed.options else source
        )
        set_origin(model, named, plain if pretrained is None else {**plain, "pretrained": pretrained})
    describe_by_paths(model, parsed)
    wanted = torch_dtype(dtype)
    if wanted is not None:
        model = model.to(wanted)
    if device is not None:
        model = model.to(pick_device(device))
    return model.eval()


def _plain(value: Any) -> bool:
    """Whether JSON has it, so that a saved model can be built with it again."""
    if isinstance(value, list | tuple | dict):
        return all(map(_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (str, int, float, bool))


def load_told(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``checkpoint:FILE`` or its folder: weights that say what architecture they are of."""
    return _built(resolved(source), pretrained, kwargs)[0]


def _built(source: Source, pretrained: bool | None, options: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and the options it was built with."""
    build = MODEL_SOURCES.get(source.scheme)
    try:
        if source.scheme in WORDS and "checkpoint" in source.options:
            return load_checkpoint(source, partial(build, source, pretrained=False), options)
        return build(source, pretrained=pretrained, **options), options
    except (TypeError, ValueError, AssertionError) as problem:
        if isinstance(problem, DeadweightError) or not options or source.scheme not in MODEL_OPTIONS:
            raise
        told = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise SourceError(
            f"{source.text!r} with {told[:200]}: {str(problem).splitlines()[0] if str(problem) else 'refused'}",
            expected="options the model's class can be built with",
            cure="leave out what its name has settled already",
        ) from problem
