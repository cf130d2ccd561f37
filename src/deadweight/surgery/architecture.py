"""What is needed to build a model's modules again without its weights and without a network."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

from torch import nn

from deadweight.errors import SourceError
from deadweight.models.provenance import origin
from deadweight.surgery import library_models

_ATTRIBUTE = "_deadweight_architecture"


def remember(model: nn.Module) -> None:
    """Keep the architecture as it is before the first surgery, which may change the model's config."""
    if not hasattr(model, _ATTRIBUTE):
        described = _describe(model)
        if described is not None:
            setattr(model, _ATTRIBUTE, described)


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """Class and configuration before any surgery, as JSON values; None for models that nothing describes.

    timm and torchvision models carry no configuration: those that were loaded here are built again from their source
    string, others by the name and arguments that build the same.
    """
    found = getattr(model, _ATTRIBUTE, None)
    return copy.deepcopy(found) if found is not None else _describe(model)


def build(description: dict[str, Any]) -> nn.Module:
    """The model of an :func:`architecture`, with random weights."""
    if description["library"] == "deadweight":
        from deadweight.models.gpt2 import GPT2, GPT2Config

        gpt: nn.Module = GPT2(GPT2Config(**description["config"]))
        return gpt
    if description["library"] in library_models.LIBRARIES:
        theirs = library_models.build(description)
        setattr(theirs, _ATTRIBUTE, copy.deepcopy(description))
        return theirs
    import transformers

    kind: Any = getattr(transformers, str(description["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise SourceError(
            f"transformers {transformers.__version__} has no model {description['class']!r}",
            expected="the version of transformers the model was saved with, or a later one",
        )
    build_class: Any = kind
    model: nn.Module = build_class(_configuration(build_class.config_class, description["config"]))
    remember(model)
    return model


def _configuration(kind: Any, values: dict[str, Any]) -> Any:
    """JSON knows neither tuples, on which a configuration may insist, nor infinity, which transformers spells out."""
    usual = vars(kind())
    whole = {name: _number(value) for name, value in values.items()}
    return kind.from_dict(
        {
            name: tuple(value) if isinstance(value, list) and isinstance(usual.get(name), tuple) else value
            for name, value in whole.items()
        }
    )


def _number(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    return [_number(one) for one in value] if isinstance(value, list) else value


def _describe(model: nn.Module) -> dict[str, Any] | None:
    config: Any = getattr(model, "config", None)
    module = type(model).__module__
    if module.startswith("deadweight.models.") and dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {"library": "deadweight", "class": type(model).__name__, "config": _plain(dataclasses.asdict(config))}
    if module.startswith("transformers.models.") and hasattr(config, "to_json_string"):
        values = json.loads(config.to_json_string(use_diff=False))
        return {"library": "transformers", "class": type(model).__name__, "config": values}
    came_from = origin(model)
    if came_from is None or came_from["source"].startswith("python:"):
        return library_models.describe(model)
    return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
