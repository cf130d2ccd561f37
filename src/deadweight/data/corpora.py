"""Text of the Hugging Face hub, or of a local folder in a format `datasets` reads."""

from __future__ import annotations

from typing import Any

from deadweight.data.hub import load_parts
from deadweight.errors import SourceError
from deadweight.source import Source


def documents(source: Source, limit: int | None = None) -> list[bytes]:
    """The first `limit` rows of ``hf:DATASET[:CONFIG][@REV][#SPLIT]`` (by default of its first split), as UTF-8.

    A row is its column ``text``, or the messages of a conversation one after the other (column ``messages`` or
    ``conversations``). Raises :class:`SourceError` for what cannot be read or has no such column.
    """
    parts, split = load_parts(source, "without network use text:PATH, or embedded:stdlib")
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
