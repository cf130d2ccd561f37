"""Rows of text and label columns: the embedded tasks, CSV, JSON Lines and Parquet files, sets of the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deadweight.data.comma_separated import csv_rows, require_once
from deadweight.errors import SourceError
from deadweight.source import Source

Row = Mapping[str, str]


@dataclass(frozen=True)
class TextTable:
    """Rows whose values are text, all with the same columns; `digest` names the content."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    digest: str

    def require(self, *columns: str) -> None:
        """Raise :class:`SourceError` naming the columns there are unless all of `columns` are among them."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise SourceError(
                f"{self.name} has no column {', '.join(map(repr, missing))}",
                expected=f"some of its columns: {', '.join(self.columns)}",
                cure="name the columns, e.g. csv:reviews.csv?text=body&label=stars",
            )


def embedded_tables() -> list[str]:
    """The names of the tables that ship with the package."""
    folder = resources.files("deadweight.data") / "tasks"
    return sorted(entry.name.removesuffix(".jsonl") for entry in folder.iterdir() if entry.name.endswith(".jsonl"))


def read_table(source: Source) -> TextTable:
    """The rows of ``embedded:NAME``, ``csv:PATH``, ``jsonl:PATH``, ``parquet:PATH`` or ``hf:DATASET``.

    Raises :class:`SourceError` for an unknown kind, a file that is missing, unreadable or without rows, and rows
    that lack a column the others have.
    """
    if source.scheme not in READERS:
        raise SourceError(
            f"{source.text!r} names no table of texts",
            expected=f"one of {', '.join(f'{scheme}:…' for scheme in READERS)}",
            cure="write for example csv:reviews.csv?text=body&label=stars",
        )
    return table_of(source, READERS[source.scheme](source))


def table_of(source: Source, rows: Iterable[Mapping[Any, Any]]) -> TextTable:
    """Rows that are read already, as :func:`read_table` gives them."""
    found = [{str(key): _text(value) for key, value in row.items()} for row in rows]
    if not found:
        raise SourceError(f"{source.text!r} has no rows", expected="at least one row under the column names")
    columns = tuple(found[0])
    for number, row in enumerate(found, start=1):
        if set(row) != set(columns):
            raise SourceError(
                f"row {number} of {source.text!r} has the columns {', '.join(row)}",
                expected=f"those of the first row: {', '.join(columns)}",
            )
        try:
            "".join(row.values()).encode()
        except UnicodeEncodeError as problem:  # JSON can say half of a pair, which is no text
            raise _unreadable(source, f"row {number}: {problem.reason}") from problem
    digest = hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=12).hexdigest()
    return TextTable(source.text, columns, tuple(found), digest)


def _text(value: Any) -> str:
    """Whole numbers read as such: label 1.0 of a column that had gaps is label 1."""
    if value is None or value != value:  # NaN is the one value that differs from itself
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _path(source: Source) -> Path:
    path = Path(source.name).expanduser()
    if not path.is_file():
        raise SourceError(f"{source.text!r}: there is no such file", expected="a file", cure="check the path")
    return path


def _unreadable(source: Source, problem: object) -> SourceError:
    return SourceError(f"{source.text!r} cannot be read: {problem}", expected=f"a {source.scheme} file in UTF-8")


def _json_lines(source: Source, path: Path | None = None) -> Iterable[dict[str, Any]]:
    try:
        # A line ends where a text file's line ends; U+2028 and the like may stand within a text.
        with (path or _path(source)).open(encoding="utf-8-sig") as file:
            return [_json_row(source, number, line) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError as problem:
        raise _unreadable(source, problem) from problem


def _json_row(source: Source, number: int, line: str) -> dict[str, Any]:
    def keyed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require_once(source, (name for name, _ in pairs))
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=keyed)
    except json.JSONDecodeError as problem:
        raise _unreadable(source, f"line {number}, column {problem.colno}: {problem.msg}") from problem
    except SourceError:
        raise
    except (ValueError, RecursionError) as problem:  # a number of 5,000 digits, too deep
        raise _unreadable(source, f"line {number}: {problem}") from problem
    if not isinstance(row, dict):
        raise _unreadable(source, f"line {number} is no JSON object")
    return row


def _parquet(source: Source) -> Iterable[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        require_once(source, parquet.read_schema(_path(source)).names)
        rows: list[dict[str, Any]] = parquet.read_table(_path(source)).to_pylist()
    except ArrowException as problem:
        raise _unreadable(source, problem) from problem
    return rows


def _embedded(source: Source) -> Iterable[dict[str, Any]]:
    if source.name not in embedded_tables():
        raise SourceError(
            f"there is no embedded task {source.name!r}", expected=f"one of {', '.join(embedded_tables())}"
        )
    path = resources.files("deadweight.data") / "tasks" / f"{source.name}.jsonl"
    return _json_lines(source, Path(str(path)))


def _hub(source: Source) -> Iterable[dict[str, Any]]:
    from deadweight.data.hub_tables import rows

    return rows(source)


READERS: dict[str, Callable[[Source], Iterable[dict[str, Any]]]] = {
    "embedded": _embedded,
    "csv": csv_rows,
    "jsonl": _json_lines,
    "parquet": _parquet,
    "hf": _hub,
}
