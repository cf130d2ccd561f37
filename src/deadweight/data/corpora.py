"""Text of the Hugging Face hub, or of a local folder in a format `datasets` reads."""

from __future__ import annotations

from typing import Any

from deadweight.errors import SourceError
from deadweight.network import hub_reach
from deadweight.source import Source


def documents(source: Source, limit: int | None = None) -> list[bytes]:
    """The first `limit` rows of ``hf:DATASET[:CONFIG][@REV][#SPLIT]`` (by default of its first split), as UTF-8.

    A row is its column ``text``, or the messages of a conversation one after the other (column ``messages`` or
    ``conversations``). Raises :class:`SourceError` for what cannot be read or has no such column.
    """
    import datasets

    name, revision, split = source.repository
    name, _, config = name.partition(":")
    try:
        with hub_reach():
            parts: Any = datasets.load_dataset(name, config or None, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as problem:
        raise SourceError(
            f"{source.text!r} cannot be loaded: {str(problem).splitlines()[0]}",
            expected="a data set `datasets` can read, from its cache, the network or a local folder",
            cure="without network use text:PATH, or embedded:stdlib",
        ) from problem
    if split is not None and split not in parts:
        raise SourceError(f"{source.text!r} has no split {split!r}", expected=f"one of {', '.join(parts)}")
    rows = parts[split or next(iter(parts))]
    rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
    column = next((name for name in ("text", "messages", "conversations") if name in rows.column_names), None)
    if column is None:
        raise SourceError(
            f"{source.text!r} has the columns {', '.join(rows.column_names)}",
            expected="a column text, messages or conversations",
            cure="write the text into files and use text:FOLDER",
        )
    return [_joined(row).encode() for row in rows[column]]


def _joined(row: Any) -> str:
    if isinstance(row, str):
        return row
    said = [message.get("content") or message.get("value") or "" for message in row or []]
    return "\n".join(str(one) for one in said)
