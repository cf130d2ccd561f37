"""By which name and arguments timm or torchvision builds a model that somebody else built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from deadweight.errors import SourceError
from deadweight.signatures import class_parameters

LIBRARIES = ("timm", "torchvision")
_VALUES = (bool, int, float, str)
_OUTSIDE_EVALUATION = ("p", "drop_prob", "training", "dropout", "attn_drop", "proj_drop")  # do nothing in eval mode
_PREPROCESSING = ("mean", "std", "crop_pct", "interpolation", "input_size")
Read = Callable[[nn.Module], Any]


def describe(model: nn.Module) -> dict[str, Any] | None:
    """Library, name and arguments that build the same modules again; None where none is found.

    The arguments are read off the model; what they build is compared with it, every tensor's shape and every plain
    setting of every module.
    """
    library = type(model).__module__.partition(".")[0]
    if library not in LIBRARIES:
        return None
    for kind, name in _candidates(model, library):
        arguments = _arguments(model, library, kind, name)
        if arguments is not None:
            told = {"library": library, kind: name, "config": arguments}
            cfg = {key: getattr(model, "pretrained_cfg", {}).get(key) for key in _PREPROCESSING}
            return told | {"preprocessing": {key: value for key, value in cfg.items() if value is not None}}
    return None


def build(description: Mapping[str, Any]) -> nn.Module:
    """The model of a description, with random weights. Only the two libraries' own models are built.

    Raises :class:`SourceError` for a name the installed version does not have, and for arguments it does not take.
    """
    library, config = str(description["library"]), dict(description["config"])
    kind = "name" if "name" in description else "class"
    try:
        model = _build(library, kind, str(description[kind]), config)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, ImportError) as problem:
        raise SourceError(
            f"this {library} does not build the {description[kind]!r} that was saved ({problem})"[:400],
            expected=f"the version of {library} the model was saved with, or a later one",
            cure="give a fresh instance: dw.load('file:FOLDER', model=…)",
        ) from problem
    if isinstance(getattr(model, "pretrained_cfg", None), dict):
        held: Any = model.pretrained_cfg
        held.update(description.get("preprocessing") or {})
    return model


def _build(library: str, kind: str, name: str, config: dict[str, Any]) -> nn.Module:
    if kind == "class":
        found = _class(library, name)
        if found is None or set(config) - set(class_parameters(found)):
            raise ValueError("no such class, or other arguments than it takes")
        model: nn.Module = found(**config)
        return model
    if library == "timm":
        import timm

        if not timm.is_model(name) or {"checkpoint_path", "pretrained", "cache_dir"} & set(config):
            raise ValueError("no such model")
        made: nn.Module = timm.create_model(name, pretrained=False, **config)
        return made
    from torchvision import models

    if name not in models.list_models(module=models) or "weights" in config:
        raise ValueError("no such model")
    chosen: nn.Module = models.get_model(name, weights=None, **config)
    return chosen


def _class(library: str, name: str) -> Any:
    """A model class of the library by ``module.Class``, below the library's models; None for anything else."""
    module, _, leaf = name.rpartition(".")
    if not module.startswith(f"{library}.models."):
        return None
    found = getattr(importlib.import_module(module), leaf, None)
    return found if inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__ == module else None


def _candidates(model: nn.Module, library: str) -> Iterator[tuple[str, str]]:
    cfg = getattr(model, "pretrained_cfg", None)
    if library == "timm" and isinstance(cfg, Mapping) and cfg.get("architecture"):
        yield "name", str(cfg["architecture"])
    if library == "torchvision":
        from torchvision import models

        names = models.list_models(module=models)
        mine = [name for name in names if models.get_model_builder(name).__module__ == type(model).__module__]
        yield from (("name", name) for name in mine)
    yield "class", f"{type(model).__module__}.{type(model).__qualname__}"


def _arguments(model: nn.Module, library: str, kind: str, name: str) -> dict[str, Any] | None:
    """Arguments with which the named thing is like `model`: none first, then those that tell the two apart."""
    found = _class(library, name) if kind == "class" else type(model)
    if found is None:
        return None
    values = {key: value for key in class_parameters(found) if (value := _value(model, key)) is not None}
    plain = _tried(library, kind, name, {}) if kind == "name" else None
    differing = {key: value for key, value in values.items() if plain is None or _value(plain, key) != value}
    for arguments in ({}, differing) if kind == "name" else (_required(found, values),):
        made = _tried(library, kind, name, arguments)
        if made is not None and _alike(made, model):
            return arguments
    return None


def _required(kind: type[nn.Module], values: dict[str, Any]) -> dict[str, Any]:
    """Of the values that could be read, those that differ from the class's own defaults or have none."""
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    return {key: value for key, value in values.items() if defaults.get(key, inspect.Parameter.empty) != value}


def _tried(library: str, kind: str, name: str, arguments: dict[str, Any]) -> nn.Module | None:
    try:
        with torch.device("meta"):
            return _build(library, kind, name, dict(arguments))
    except Exception:  # whatever a class raises for arguments that do not go together
        return None


def _value(model: nn.Module, name: str) -> Any:
    """An argument's value, from the attribute of that name or where the field keeps it; None where it is not known."""
    place = _PLACES.get(name)
    try:
        found = place(model) if place is not None else getattr(model, name, None)
    except (AttributeError, IndexError, StopIteration, TypeError):
        return None
    if isinstance(found, tuple | list) and all(isinstance(part, int | float) for part in found):
        return list(found)
    return found if isinstance(found, _VALUES) else None


def _first(model: nn.Module, kind: type[nn.Module]) -> Any:
    return next(module for module in model.modules() if isinstance(module, kind))


def _attribute(*names: str) -> Read:
    """The first attribute of the first module that has one."""

    def read(model: nn.Module) -> Any:
        return next(
            getattr(m, n) for m in model.modules() for n in names if isinstance(getattr(m, n, None), int | tuple)
        )

    return read


def _stages(read: Callable[[Any], Any]) -> Read:
    """A value of each stage of a model that has several, else None."""
    return lambda model: [read(stage) for stage in model.layers]  # type: ignore[union-attr]


def _heads(model: nn.Module) -> Any:
    if all(hasattr(stage, "blocks") for stage in getattr(model, "layers", [None])):
        return _stages(lambda stage: stage.blocks[0].attn.num_heads)(model)
    return _attribute("num_heads")(model)


def _classes(model: nn.Module) -> Any:
    found = getattr(model, "num_classes", None)
    return found if found is not None else [m for m in model.modules() if isinstance(m, nn.Linear)][-1].out_features


def _mlp_ratio(model: Any) -> float:
    layer = next(m for n, m in model.named_modules() if n.endswith("fc1"))
    return float(layer.out_features / layer.in_features)


_PLACES: Mapping[str, Read] = {
    "img_size": _attribute("img_size"),
    "patch_size": _attribute("patch_size"),
    "in_chans": lambda model: _first(model, nn.Conv2d).in_channels,
    "depth": lambda model: len(model.blocks),  # type: ignore[arg-type]
    "depths": _stages(lambda stage: len(stage.blocks)),
    "num_heads": _heads,
    "num_classes": _classes,
    "mlp_ratio": _mlp_ratio,
    "qkv_bias": lambda model: next(m for n, m in model.named_modules() if n.endswith("qkv")).bias is not None,
    "num_layers": lambda model: len(model.encoder.layers),  # type: ignore[union-attr,arg-type]
    "mlp_dim": lambda model: model.mlp_dim,
    "class_token": lambda model: getattr(model, "cls_token", None) is not None,
}


def _alike(made: nn.Module, model: nn.Module) -> bool:
    """Whether two modules have the same tensors and the same plain settings all through."""
    return _tensors(made) == _tensors(model) and _settings(made) == _settings(model)


def _tensors(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _settings(model: nn.Module) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for path, module in model.named_modules():
        found[path, "class"] = type(module).__name__
        for name, value in vars(module).items():
            if not name.startswith("_") and name not in _OUTSIDE_EVALUATION and isinstance(value, (*_VALUES, tuple)):
                found[path, name] = value
    return found


__all__ = ["LIBRARIES", "build", "describe"]
