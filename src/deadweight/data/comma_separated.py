"""Comma-separated files as spreadsheets and programs write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deadweight.errors import SourceError
from deadweight.source import Source

# The longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_LINE_END = re.compile(r"\r\n|\r|\n")
_OTHERS = "\t;|"
_LONGEST_FIELD = min(sys.maxsize, 2**31 - 1)  # a C long, which has 32 bits on Windows


def csv_rows(source: Source) -> Iterable[dict[str, Any]]:
    """The rows of ``csv:PATH[?delimiter=;&encoding=NAME]``, by the names in the first line.

    Without ``delimiter=`` the one of a ``sep=`` line is taken; else a tab, a semicolon or a bar where the first line
    has it and no comma. Without ``encoding=`` the file's byte-order mark says what it is, else it is UTF-8. Empty lines
    are skipped, and columns that have neither a name nor a value.

    Raises :class:`SourceError` for a file that is none of this, and for two columns of one name.
    """
    path = Path(source.name).expanduser()
    if not path.is_file():
        raise SourceError(f"{source.text!r}: there is no such file", expected="a file", cure="check the path")
    text = _decoded(source, path.read_bytes())
    delimiter, text = _delimiter(source, text)
    try:
        with _long_fields():
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as problem:
        raise SourceError(f"{source.text!r} cannot be read: {problem}", expected="a csv file") from problem
    if not rows:
        return []
    names = [name.strip() for name in rows[0][1]]
    require_once(source, [name for name in names if name])
    for number, (line, row) in enumerate(rows[1:], start=1):
        if len(row) != len(names) or any(value and not name for name, value in zip(names, row, strict=True)):
            raise SourceError(
                f"{source.text!r} cannot be read: row {number}, which ends on line {line}, has {len(row)} fields for "
                f"{sum(map(bool, names))} named columns",
                expected=f"as many, {delimiter!r} between them",
                cure="put fields that hold it between double quotes, or say what is between: ?delimiter=;",
            )
    return [{name: value for name, value in zip(names, row, strict=True) if name} for _, row in rows[1:]]


def require_once(source: Source, names: Iterable[str]) -> None:
    """Raise :class:`SourceError` for two columns of one name: nobody can say which of them is meant."""
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise SourceError(
            f"{source.text!r} has more than one column named {', '.join(map(repr, doubled[:5]))}",
            expected="each name once",
            cure="rename or remove the column that is not meant",
        )


def _decoded(source: Source, content: bytes) -> str:
    wanted = source.options.get("encoding")
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(wanted or marked).removeprefix("\ufeff")
    except LookupError as problem:
        raise SourceError(
            f"encoding={wanted!r} in {source.text!r}", expected="an encoding Python knows, e.g. cp1252, utf-16, gbk"
        ) from problem
    except UnicodeDecodeError as problem:
        byte, line = content[problem.start], content[: problem.start].count(b"\n") + 1
        raise SourceError(
            f"{source.text!r} cannot be read: line {line} is not {problem.encoding} (byte {byte:#04x})",
            expected="text in UTF-8, or with a byte-order mark",
            cure="say what it is: ?encoding=cp1252 (Western Windows), gbk, shift_jis, …",
        ) from problem


def _delimiter(source: Source, text: str) -> tuple[str, str]:
    """What is between the fields, and the text without a ``sep=`` line."""
    first, rest = _first_line(text)
    told = first[4:] if first.lower().startswith("sep=") and len(first) == 5 else ""
    if told:
        text = rest
        first, _ = _first_line(text)
    wanted = source.options.get("delimiter")
    if wanted is None:
        others = [mark for mark in _OTHERS if mark in first]
        return told or (others[0] if others and "," not in first else ","), text
    mark = _SPELLED.get(wanted.lower(), wanted)
    if len(mark) != 1 or mark in '"\r\n':
        raise SourceError(
            f"delimiter={wanted!r} in {source.text!r}", expected="one character, or tab, comma, semicolon, pipe"
        )
    return mark, text


def _first_line(text: str) -> tuple[str, str]:
    """The first line that is not empty, and what follows it."""
    first, *rest = _LINE_END.split(text.lstrip("\r\n"), maxsplit=1)
    return first, "".join(rest)


@contextmanager
def _long_fields() -> Iterator[None]:
    """A field may be a whole document; Python's own limit of 131,072 letters guards against unclosed quotes."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


__all__ = ["csv_rows", "require_once"]
