"""What a function or class takes, read off its signature, and text of a source as values of those types."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from deadweight.errors import SourceError
from deadweight.source import Source, check_options

_PLAIN = (bool, int, float, str, tuple, list)


def class_parameters(kind: type) -> dict[str, tuple[Any, ...]]:
    """The plain parameters of a class and of those it passes ``**kwargs`` on to: name -> types its value may have."""
    found: dict[str, tuple[Any, ...]] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(_signature(base.__init__).values())[1:]  # type: ignore[misc]  # the class's own, not an instance's
        found = {**_plain_ones(own), **found}
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def function_parameters(function: Any) -> tuple[dict[str, tuple[Any, ...]], bool]:
    """The parameters of a function, and whether it takes any others (``**options``).

    One that says neither its type nor a default takes whatever the text looks like.

    >>> def build(depth: int, name="x", more=None): ...
    >>> function_parameters(build)
    ({'depth': (<class 'int'>,), 'name': (<class 'str'>,), 'more': ()}, False)
    """
    own = list(_signature(function).values())
    named = [parameter for parameter in own if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)]
    plain = _plain_ones(named)
    open_ended = any(parameter.kind == parameter.VAR_KEYWORD for parameter in own)
    return {parameter.name: plain.get(parameter.name, ()) for parameter in named}, open_ended


def _plain_ones(parameters: list[inspect.Parameter]) -> dict[str, tuple[Any, ...]]:
    kinds = {p.name: _of_annotation(p.annotation) or value_types(p.default) for p in parameters}
    return {name: found for name, found in kinds.items() if found}


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
    if text.lower() == "none" and str not in kinds:
        return None
    for kind in kinds or (bool, int, float, tuple, str):
        value = _READERS[kind](text) if kind in _READERS else text if text == kind else None
        if value is not None:
            return value
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


def value_types(value: Any) -> tuple[Any, ...]:
    """The type of a plain value; nothing for None, and for sequences of other than numbers."""
    if isinstance(value, list | tuple) and not all(isinstance(part, int | float) for part in value):
        return ()
    return (type(value),) if type(value) in _PLAIN else ()


def _signature(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except NameError:  # an annotation that is only imported for type checkers
        return inspect.signature(function).parameters


__all__ = ["class_parameters", "function_parameters", "typed", "typed_options", "value_types"]
