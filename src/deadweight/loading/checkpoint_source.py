"""`checkpoint:PATH`: a file of weights, or its folder, that tells its own architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deadweight.errors import SourceError
from deadweight.loading.timm_names import register_ours
from deadweight.models.checkpoint_files import read_checkpoint
from deadweight.models.factories import timm_parameters, torchvision_parameters
from deadweight.source import Source

_TOLD = ("arch", "architecture", "model", "model_name")
_ARGUMENTS = ("num_classes", "in_chans", "img_size")  # of timm's train.py that belong to the model


def resolved(source: Source) -> Source:
    """A ``checkpoint:`` source as what it stands for, e.g. ``timm:NAME?checkpoint=PATH``; any other as it is.

    Raises
    ------
    SourceError
        Nothing there says what architecture the weights are of; the message says how to.
    """
    if source.scheme != "checkpoint":
        return source
    place = Path(source.name).expanduser()
    beside = place if place.is_dir() else place.parent
    if place.is_dir() and (place / "deadweight.json").is_file():
        return replace(source, scheme="file", name=str(place))
    config = _config(beside / "config.json", source)
    if "architectures" in config or "model_type" in config:
        more = {} if place.is_dir() else {"checkpoint": str(place)}
        return replace(source, scheme="hf", name=str(beside), options={**more, **source.options})
    if "architecture" in config:  # as timm writes folders for the hub
        given = {**(config.get("model_args") or {}), "num_classes": config.get("num_classes")}
        return _named(source, place, str(config["architecture"]), given)
    facts = read_checkpoint(place, source.text, averaged=source.flag("ema", False)).facts
    args: Any = facts.get("args")
    args = args if isinstance(args, Mapping) else {}
    name = next((str(where[key]) for where in (facts, args) for key in _TOLD if isinstance(where.get(key), str)), None)
    if name is None:
        raise SourceError(
            f"{source.text!r} does not say what architecture its weights are of",
            expected="a file of timm's train.py, safetensors metadata with `arch`, or a config.json beside it",
            cure=f"name it: timm:NAME?checkpoint={source.name}, or with torchvision:NAME or hf:FOLDER",
        )
    given = {key: args.get(key) for key in _ARGUMENTS} | {"global_pool": args.get("gp")}
    return _named(source, place, name, {**given, **(args.get("model_kwargs") or {})}, torchvision="arch" not in facts)


def _named(source: Source, place: Path, name: str, given: Mapping[str, Any], *, torchvision: bool = False) -> Source:
    import timm
    from torchvision import models

    plain = {
        key: _text(value) for key, value in given.items() if isinstance(value, (bool, int, float, str, list, tuple))
    }
    theirs = name in models.list_models(module=models)
    for scheme, parameters in (("torchvision", torchvision_parameters), ("timm", timm_parameters)):
        of = replace(source, scheme=scheme, name=name)
        register_ours(of)
        if not (torchvision and theirs if scheme == "torchvision" else timm.is_model(name.partition(".")[0])):
            continue
        known = parameters(of)  # a script's img_size is no argument of a convolutional network
        told = {key: value for key, value in plain.items() if value and key in known}
        return replace(of, options={"checkpoint": str(place), **told, **source.options})
    raise SourceError(
        f"{source.text!r} is of the architecture {name!r}, which neither timm nor torchvision knows",
        expected="a model of timm, torchvision or transformers",
        cure=f"build it in a file of your own: python:MODULE:FUNCTION?checkpoint={source.name}",
    )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _config(path: Path, source: Source) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise SourceError(f"{source.text!r}: {path} cannot be read ({problem})", expected="JSON") from problem
    return found if isinstance(found, dict) else {}


__all__ = ["resolved"]
