"""Source strings: where a model or data comes from, as people write it.

``scheme:name[@revision][#split][?option=value&…]``, for example ``timm:vit_base_patch16_224?pretrained=false``,
``hf:org/model@main``, ``folder:C:\\pictures``, ``csv:reviews.csv?text=body&label=stars``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from deadweight.errors import SourceError
from deadweight.registry import did_you_mean

_SCHEME = re.compile(r"^([a-z][a-z0-9_+-]+):(.+)$", re.DOTALL)
_FIRST_OPTION = re.compile(r"\?(?=[A-Za-z_]\w*=)")
_NEXT_OPTION = re.compile(r"&(?=[A-Za-z_]\w*=)")


@dataclass(frozen=True)
class Source:
    """A parsed source string; `text` is the string as it was given."""

    text: str
    scheme: str
    name: str
    options: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def repository(self) -> tuple[str, str | None, str | None]:
        """``(name, revision, split)`` of hub sources written ``NAME[@REVISION][#SPLIT]``."""
        rest, _, split = self.name.partition("#")
        name, _, revision = rest.partition("@")
        return name, revision or None, split or None

    def flag(self, option: str, default: bool) -> bool:
        """A yes/no option; raises :class:`SourceError` on anything else."""
        value = self.options.get(option)
        if value is None:
            return default
        if value.lower() in {"true", "1", "yes"}:
            return True
        if value.lower() in {"false", "0", "no"}:
            return False
        raise SourceError(
            f"{option}={value!r} in {self.text!r}", expected="true or false", cure=f"write ?{option}=false"
        )

    def number(self, option: str, *, lowest: int, highest: int | None = None) -> int | None:
        """A whole-number option, None where it is not given; raises :class:`SourceError` outside its range.

        >>> parse_source("folder:pictures?bits=12").number("bits", lowest=9, highest=16)
        12
        """
        text = self.options.get(option)
        if text is None:
            return None
        value = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text.strip()) else None
        if value is None or value < lowest or (highest is not None and value > highest):
            raise SourceError(
                f"{option}={text!r} in {self.text!r}",
                expected=f"a whole number, {lowest} or more" if highest is None else f"{lowest} to {highest}",
                cure=f"write ?{option}={lowest if highest is None else highest}",
            )
        return value


def parse_source(text: str, *, example: str = "timm:vit_base_patch16_224") -> Source:
    """Split a source string; a missing scheme raises :class:`SourceError` with an example.

    A scheme has at least two letters, so that ``C:\\models`` is read as a path without a scheme.
    Options begin after the first ``?`` that ``name=`` follows, and go on after each ``&`` that ``name=`` follows: file
    names and values may hold both. Values are read as typed, but for ``%26`` and the like.
    An option given twice raises :class:`SourceError`.

    >>> parse_source("csv:what?.csv?template=Q & A about C++? {text}&label=stars").options
    {'template': 'Q & A about C++? {text}', 'label': 'stars'}
    """
    matched = _SCHEME.match(text.strip())
    if not matched:
        raise SourceError(
            f"source {text!r} does not say what kind it is",
            expected="SCHEME:NAME",
            cure=f"write for example {example}; `deadweight list models` and `deadweight list data` show the kinds",
        )
    scheme, name = matched.groups()
    options: dict[str, str] = {}
    first = _FIRST_OPTION.search(name)
    for pair in _NEXT_OPTION.split(name[first.end() :]) if first else ():
        key, _, value = pair.partition("=")
        if key in options:
            raise SourceError(
                f"{text!r} gives the option {key!r} twice", expected="each once", cure="write %26 for an & in a value"
            )
        options[key] = unquote(value)
    name = name[: first.start()] if first else name
    return Source(text.strip(), scheme, name, options)


def check_options(source: Source, known: Iterable[str]) -> None:
    """Refuse every option of `source` that is not among the `known`, which the error lists.

    >>> check_options(parse_source("timm:vit_tiny_patch16_224?pretrained=false"), ["pretrained"])
    """
    known = sorted(known)
    for name in source.options:
        if name not in known:
            raise SourceError(
                f"{source.text!r} has the option {name!r}, which nothing reads",
                expected=f"one of {', '.join(known)}" if known else f"no option: {source.scheme}: takes none here",
                cure=did_you_mean(name, known) if known else "leave it out",
            )


def with_option(text: str, name: str, value: str) -> str:
    """A source string with one more option.

    >>> with_option("file:my_vit?model=python:m:build", "paths", "blocks=layers")
    'file:my_vit?model=python:m:build&paths=blocks=layers'
    """
    mark = "&" if parse_source(text).options else "?"
    return f"{text}{mark}{name}={quote(value, safe='=,:+./')}"


def without(source: Source, *names: str) -> str:
    """The source as a string, some of its options left out.

    >>> without(parse_source("timm:vit?checkpoint=a.pth&img_size=64"), "checkpoint")
    'timm:vit?img_size=64'
    """
    text = f"{source.scheme}:{source.name}"
    for name, value in source.options.items():
        text = text if name in names else with_option(text, name, value)
    return text
