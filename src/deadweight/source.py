"""Source strings: where a model or data comes from, as people write it.

``scheme:name[@revision][#split][?option=value&…]``, for example ``timm:vit_base_patch16_224?pretrained=false``,
``hf:org/model@main``, ``folder:C:\\pictures``, ``csv:reviews.csv?text=body&label=stars``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from deadweight.errors import SourceError

_SCHEME = re.compile(r"^([a-z][a-z0-9_+-]+):(.+)$", re.DOTALL)
_OPTIONS = re.compile(r"^[A-Za-z_]\w*=[^&]*(&[A-Za-z_]\w*=[^&]*)*$")


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
    Everything after the last ``?`` is options only if it reads ``name=value&…``: file names may hold ``?``.
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
    head, mark, tail = name.rpartition("?")
    if mark and _OPTIONS.match(tail):
        name, options = head, dict(parse_qsl(tail, keep_blank_values=True))
    return Source(text.strip(), scheme, name, options)
