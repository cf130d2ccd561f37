"""A library's model with the weights of a file: `timm:NAME?checkpoint=FILE`, and hf: and torchvision: alike."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.errors import SourceError
from deadweight.models import input_shape
from deadweight.models.checkpoint_files import Checkpoint, read_checkpoint
from deadweight.models.matching import require_match
from deadweight.source import Source

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Words:
    """What a library calls the two options that follow from the weights."""

    classes: str
    size: str


WORDS: Mapping[str, Words] = {
    "timm": Words("num_classes", "img_size"),
    "torchvision": Words("num_classes", "image_size"),
    "hf": Words("num_labels", "image_size"),
}
_POSITIONS = ("pos_embed", "pos_embedding", "position_embeddings")


def check_checkpoint(source: Source) -> None:
    """Refuse options that only mean something together with a checkpoint, or only without one."""
    if "checkpoint" in source.options:
        if source.flag("pretrained", False):
            raise SourceError(
                f"{source.text!r} wants the published weights and those of a file",
                expected="one or the other",
                cure="leave out pretrained=true",
            )
        return
    alone = ("ema",) if source.scheme == "hf" else ("ema", "strict")
    for name in alone:
        if name in source.options and source.scheme in (*WORDS, "python"):
            raise SourceError(
                f"{source.text!r} has {name}= and no checkpoint=",
                expected="a checkpoint that it is about",
                cure=f"{source.scheme}:{source.name}?checkpoint=FILE&{name}={source.options[name]}",
            )


def load_checkpoint(source: Source, build: Build, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The model that `build` gives, with the weights of ``?checkpoint=``, and the options it was built with.

    The number of classes and the size of pictures follow from the weights where nobody says them. Every tensor must
    match unless ``?strict=false``.

    Raises
    ------
    SourceError
        The file cannot be read, or its tensors are not this model's; the message counts and names them.
    """
    found = read_checkpoint(source.options["checkpoint"], source.text, averaged=source.flag("ema", False))
    words, chosen = WORDS[source.scheme], {**_preparation(source, found), **options}
    with torch.device("meta"):
        plain = build(**chosen)
    tensors = aligned(found.tensors, plain)
    for name, value in ((words.classes, _classes(plain, tensors)), (words.size, _size(plain, tensors))):
        if value is not None and name not in chosen:
            chosen[name] = value
    return filled(source, build(**chosen), found), chosen


def filled(source: Source, model: nn.Module, found: Checkpoint) -> nn.Module:
    """`model`, with the weights of a checkpoint in place of its own."""
    words = WORDS.get(source.scheme, Words("", ""))
    tensors = aligned(found.tensors, model)
    own = model.state_dict()
    places = {name: (value.data_ptr(), tuple(value.shape)) for name, value in own.items()}
    known = {places[name] for name in tensors if name in places}
    missing = [name for name in own if name not in tensors and places[name] not in known]
    shapes = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    unexpected = [name for name in tensors if name not in own and not _derived(name, model)]
    require_match(
        source.text, missing=missing, unexpected=unexpected, shapes=shapes, total=len(own),
        strict=source.flag("strict", True), hint=_hint(missing, shapes, words),
    )  # fmt: skip
    model.load_state_dict({n: t for n, t in tensors.items() if n in own and n not in shapes}, strict=False)
    tie: Any = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()
    return model


def aligned(tensors: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The tensors by the names the model uses: a first part of all names is taken off where that fits better (Lightning
    writes ``model.``), and the library's own translation of published files is used where it changes no shape.
    """
    own = model.state_dict()
    best = tensors
    for first in dict.fromkeys(name.partition(".")[0] for name in tensors):
        inner = {name.partition(".")[2] if name.startswith(f"{first}.") else name: t for name, t in tensors.items()}
        if len(inner) == len(tensors) and _fits(inner, own) > _fits(best, own):
            best = inner
    if set(best) == set(own):
        return best
    translate: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is None or not type(model).__module__.startswith("timm."):
        return best
    try:
        theirs = translate(dict(best), model)
    except Exception:  # a translation of other files than this
        return best
    moved = {id(tensor) for tensor in theirs.values()}
    resized = any(n in best and t.shape != best[n].shape and id(best[n]) not in moved for n, t in theirs.items())
    return theirs if not resized and _fits(theirs, own) > _fits(best, own) else best


def _fits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    """How many tensors the model has under that name, those of the right shape counted twice."""
    return sum(1 + (tensor.shape == own[name].shape) for name, tensor in tensors.items() if name in own)


def _derived(name: str, model: nn.Module) -> bool:
    """Whether a tensor without a place is one the model computes itself, or that its library says to ignore."""
    buffers = {path for path, _ in model.named_buffers()}
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return name in buffers or any(re.search(pattern, name) for pattern in patterns)


def _classes(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """Rows of the classifier in the checkpoint; None where it has none."""
    cfg: Any = getattr(model, "default_cfg", None) or {}
    named = cfg.get("classifier") or [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1:]
    names = [named] if isinstance(named, str) else list(named)
    rows = [len(tensors[f"{name}.weight"]) for name in names if f"{name}.weight" in tensors]
    own = dict(model.named_parameters())
    present = [name for name in names if f"{name}.weight" in own]
    return rows[0] if rows and present and rows[0] != len(own[f"{present[0]}.weight"]) else None


def _size(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """Pixels a side that the checkpoint's position encoding was made for, where they are not the model's."""
    own = dict(model.named_parameters())
    names = [name for name in own if name.rpartition(".")[2] in _POSITIONS and own[name].dim() == 3]
    if len(names) != 1 or names[0] not in tensors or tensors[names[0]].dim() != 3:
        return None
    patch = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).kernel_size[0]
    _, height, width = input_shape(model)
    prefix = own[names[0]].shape[1] - (height // patch) * (width // patch)
    side = math.isqrt(max(0, tensors[names[0]].shape[1] - prefix))
    fits = side * side + prefix == tensors[names[0]].shape[1]
    return side * patch if fits and side * patch != height else None


def _hint(missing: list[str], shapes: list[str], words: Words) -> str:
    heads = [name for name in missing if any(part in name for part in ("head", "classifier", "fc."))]
    if words.classes and missing and heads == missing and not shapes:
        return f"it has no classifier: {words.classes}=0 builds the model without one"
    if words.size and any(name.rpartition(".")[2] in _POSITIONS for name in shapes):
        return f"it may be made for pictures of another size: {words.size}="
    return ""


def _preparation(source: Source, found: Checkpoint) -> dict[str, Any]:
    """The preprocessing a timm training script trained with, where the file says it."""
    args = found.facts.get("args")
    if source.scheme != "timm" or not isinstance(args, Mapping):
        return {}
    names = ("mean", "std", "crop_pct", "interpolation")
    told = {name: args[name] for name in names if args.get(name) not in (None, "")}
    return {"pretrained_cfg_overlay": told} if told else {}


__all__ = ["WORDS", "check_checkpoint", "filled", "load_checkpoint"]
