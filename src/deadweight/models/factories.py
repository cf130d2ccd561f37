"""What the factory of a model takes, read off the library's own signatures, and text as a value of that type."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import nn

from deadweight.errors import SourceError
from deadweight.source import Source, check_options

_PLAIN = (bool, int, float, str, tuple, list)


def timm_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind a timm name takes: parameter -> the plain types its value may have."""
    import timm

    return class_parameters(_built(lambda: timm.create_model(source.name, pretrained=False)))


def torchvision_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind a torchvision name takes."""
    from torchvision import models

    return class_parameters(_built(lambda: models.get_model(source.name, weights=None)))


def embedded_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """What the class behind an embedded model takes; nothing where its weights come with it."""
    from timm.models.vision_transformer import VisionTransformer

    from deadweight.models.embedded import DIGITS_VIT

    return class_parameters(VisionTransformer) if source.name == DIGITS_VIT else {}


def hub_parameters(source: Source) -> dict[str, tuple[Any, ...]]:
    """The plain settings of a Hugging Face configuration, with the types of the values they have."""
    from deadweight.models.hub import config_of

    config = config_of(source)
    found = {name: _of_value(value) for name, value in config.to_dict().items() if not name.startswith("_")}
    found |= {"num_labels": (int,), "attn_implementation": ("eager", "sdpa", "flash_attention_2")}
    return {name: kinds for name, kinds in found.items() if kinds}


def class_parameters(kind: type[nn.Module]) -> dict[str, tuple[Any, ...]]:
    """The plain parameters of a class and of those it passes ``**kwargs`` on to."""
    found: dict[str, tuple[Any, ...]] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base) or base is nn.Module:
            continue
        parameters = _signature(base.__init__)  # type: ignore[misc]  # the class's own, not an instance's
        for parameter in list(parameters.values())[1:]:
            kinds = _of_annotation(parameter.annotation) or _of_value(parameter.default)
            if kinds and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, kinds)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def typed_options(source: Source, own: Mapping[str, str], factory: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The factory's options of `source`, as values; anything that is neither `own` nor the factory's is refused."""
    check_options(source, {*own, *factory})
    return {name: typed(source, name, text, factory[name]) for name, text in source.options.items() if name in factory}


def typed(source: Source, name: str, text: str, kinds: tuple[Any, ...]) -> Any:
    """`text` as the first of `kinds` it can be read as; else :class:`SourceError`.

    >>> from deadweight.source import parse_source
    >>> typed(parse_source("timm:vit?img_size=224,196"), "img_size", "224,196", (int, tuple))
    (224, 196)
    """
    for kind in kinds:
        value = _READERS[kind](text) if kind in _READERS else text if text == kind else None
        if value is not None:
            return value
    if text.lower() == "none":
        return None
    said = [_NAMES.get(kind, str(kind)) for kind in kinds]
    raise SourceError(
        f"{name}={text!r} in {source.text!r}",
        expected=f"{', '.join(said[:-1])} or {said[-1]}" if len(said) > 1 else said[0],
        cure=f"write ?{name}=VALUE",
    )


def _flag(text: str) -> bool | None:
    return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())


def _number(kind: type[int] | type[float]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return None

    return read


def _numbers(text: str) -> tuple[Any, ...] | None:
    parts = [part.strip() for part in text.strip("[]()").split(",") if part.strip()]
    values = [_number(int)(part) if _number(int)(part) is not None else _number(float)(part) for part in parts]
    return tuple(values) if "," in text and None not in values else None


_READERS: Mapping[Any, Callable[[str], Any]] = {
    bool: _flag, int: _number(int), float: _number(float), tuple: _numbers, list: _numbers, str: str,
}  # fmt: skip
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers between commas",
          list: "numbers between commas", str: "text"}  # fmt: skip


def _of_annotation(annotation: Any) -> tuple[Any, ...]:
    """The plain types of an annotation, the narrowest first; literals as themselves."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        found = {kind for part in get_args(annotation) for kind in _of_annotation(part)}
        return tuple(sorted(found, key=lambda kind: _PLAIN.index(kind) if kind in _PLAIN else -1))
    if origin is Literal:
        return tuple(get_args(annotation))
    kind = origin or annotation
    return (kind,) if kind in _PLAIN else ()


def _of_value(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list | tuple) and not all(isinstance(part, int | float) for part in value):
        return ()
    return (type(value),) if type(value) in _PLAIN else ()


def _signature(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except NameError:  # an annotation that is only imported for type checkers
        return inspect.signature(function).parameters


def _built(build: Callable[[], nn.Module]) -> type[nn.Module]:
    with torch.device("meta"):
        return type(build())


__all__ = [
    "class_parameters", "embedded_parameters", "hub_parameters", "timm_parameters", "torchvision_parameters", "typed",
    "typed_options",
]  # fmt: skip
