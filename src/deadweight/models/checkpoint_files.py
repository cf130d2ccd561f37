"""Files of weights as people have them: safetensors and torch's archives, whole or in parts, with what lies around."""

from __future__ import annotations

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deadweight.errors import SourceError
from deadweight.models.matching import plain_key

SAFE_WAYS = (
    "save the tensors alone, where you trust the file: torch.save(model.state_dict(), 'weights.pth') or "
    "safetensors.torch.save_model(model, 'weights.safetensors')"
)
_WHOLE = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.bin", "model.pth", "model.pt")
_PART = re.compile(r"-\d{5}-of-(\d{5})(?=\.)")
_RAW = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_COUNTER = "n_averaged"  # of torch's AveragedModel; no weight
# Plain values that training scripts put beside the weights, and that run nothing when they are read.
_scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
_PLAIN: list[Any] = [
    argparse.Namespace, type(Path()), (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"), np.dtype,
    *(type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8")),
]  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what a file says beside them.

    tensors: by the model's own names, prefixes of wrappers taken off.
    facts:   what else the file holds that is plain: ``arch``, ``args`` (as a dictionary), safetensors' metadata.
    """

    path: Path
    tensors: Mapping[str, Tensor] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)


def read_checkpoint(path: str | Path, text: str, *, averaged: bool = False) -> Checkpoint:
    """The weights in a file (``.safetensors .pth .pt .pth.tar .bin``), in a part of several, in an index, in a folder.

    Parameters
    ----------
    text:
        The source, for errors.
    averaged:
        The exponential moving average of the weights instead of the weights themselves.

    Raises
    ------
    SourceError
        No such file, no archive, one cut short, one that holds code, parts missing, no weights or no averaged ones.
    """
    place = Path(path).expanduser()
    held: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for file in _files(place, text):
        content, told = _safetensors(file, text) if file.suffix == ".safetensors" else (_torch(file, text), {})
        held, facts = {**held, **content}, {**facts, **told}
    state = _weights(held, text, averaged)
    tensors = {plain_key(name): value for name, value in state.items() if isinstance(value, Tensor)}
    tensors.pop(_COUNTER, None)
    if state is not held:
        facts |= {name: value for name, value in held.items() if not isinstance(value, Mapping | Tensor)}
    args = facts.get("args")
    return Checkpoint(place, tensors, facts | ({"args": vars(args)} if isinstance(args, argparse.Namespace) else {}))


def _files(place: Path, text: str) -> list[Path]:
    if place.is_dir():
        found = [place / name for name in _WHOLE if (place / name).is_file()] or sorted(place.glob("*.index.json"))
        found = found or [
            file for file in sorted(place.iterdir()) if file.suffix in (".safetensors", ".pth", ".pt", ".bin")
        ]
        if not found:
            raise SourceError(f"{text!r}: {place} holds no weights", expected=f"a file such as {_WHOLE[0]}")
        return _files(found[0], text)
    if not place.is_file():
        raise SourceError(f"{text!r}: there is no file {place}", expected="a file of weights", cure="check the path")
    if place.name.endswith(".index.json"):
        try:
            names = sorted(set(json.loads(place.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as problem:
            raise SourceError(
                f"{text!r}: {place.name} cannot be read ({problem})", expected="a weight_map"
            ) from problem
        return _present([place.parent / Path(str(name)).name for name in names], text)
    part = _PART.search(place.name)
    if part is None:
        return [place]
    numbers = range(1, int(part[1]) + 1)
    return _present([place.with_name(_PART.sub(f"-{n:05d}-of-{part[1]}", place.name)) for n in numbers], text)


def _present(files: list[Path], text: str) -> list[Path]:
    if missing := [file.name for file in files if not file.is_file()]:
        raise SourceError(
            f"{text!r} is in {len(files)} parts, and {', '.join(missing[:4])} not in {files[0].parent}",
            expected="all parts in one folder",
            cure="copy the missing parts there",
        )
    return files


def _safetensors(file: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as problem:
        raise _damaged(file, text, problem) from problem


def _torch(file: Path, text: str) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a pickle's version
            held: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as problem:  # whatever a damaged or hostile archive makes it raise
        said = str(problem)
        if "TorchScript" in said:
            raise _code(file, text, "it is a TorchScript program") from problem
        unsafe = re.search(r"GLOBAL (\S+)|Unsupported (?:global|class|operand)|[Uu]nsupported function", said)
        if unsafe and "invalid load key" not in said:
            raise _code(file, text, f"it calls {unsafe[1]}" if unsafe[1] else "it calls functions") from problem
        raise _damaged(file, text, problem) from problem
    if not isinstance(held, Mapping):
        raise SourceError(
            f"{text!r}: {file.name} holds a {type(held).__name__}", expected="a dictionary of tensors", cure=SAFE_WAYS
        )
    return dict(held)


def _code(file: Path, text: str, what: str) -> SourceError:
    return SourceError(
        f"{text!r}: {file.name} holds code besides tensors ({what}), and was not run",
        expected="tensors, numbers and texts",
        cure=SAFE_WAYS,
    )


def _damaged(file: Path, text: str, problem: Exception) -> SourceError:
    lines = str(problem).splitlines() or [type(problem).__name__]
    return SourceError(
        f"{text!r}: {file.name} is no whole archive of weights ({type(problem).__name__}: {lines[0][:120]})",
        expected="a .safetensors file or one that torch.save wrote",
        cure="it may be cut short, or something else: copy it again",
    )


def _weights(held: Mapping[str, Any], text: str, averaged: bool) -> Mapping[str, Any]:
    """The dictionary of tensors in what a training script saved."""
    if _is_state(held) and not averaged:
        return held
    for name in _AVERAGED if averaged else _RAW:
        if isinstance(held.get(name), Mapping):
            return _weights(held[name], text, False)
    others = [name for name in _AVERAGED if isinstance(held.get(name), Mapping)]
    inside = [value for value in held.values() if isinstance(value, Mapping) and _is_state(value)]
    if not averaged and not others and len(inside) == 1:
        return inside[0]
    raise SourceError(
        f"{text!r} holds {'no averaged weights' if averaged else 'no weights of its own'}, but "
        f"{', '.join(map(str, list(held)[:8])) or 'nothing'}",
        expected=f"one of {', '.join(_AVERAGED if averaged else _RAW)}, or the tensors themselves",
        cure="leave out ema=true" if averaged else "add ema=true" if others else SAFE_WAYS,
    )


def _is_state(held: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in held.values()) and not any(
        isinstance(value, Mapping) for value in held.values()
    )


__all__ = ["SAFE_WAYS", "Checkpoint", "read_checkpoint"]
