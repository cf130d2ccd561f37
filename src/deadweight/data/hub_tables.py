"""Rows of a data set of the Hugging Face hub, its cache, or a local folder `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deadweight.data.hub import class_numbers, load_parts
from deadweight.errors import SourceError
from deadweight.source import Source

SPLITS = ("validation", "test", "train")


def rows(source: Source) -> Iterable[dict[str, Any]]:
    """``hf:DATASET[:CONFIG][@REV][#SPLIT]``; without a split the first there is of validation, test and train.

    Class numbers are told by the names the set declares for them; an unlabelled row has nothing there.
    """
    import datasets

    parts, split = load_parts(source, "give a file instead: csv:, jsonl: or parquet:")
    chosen = split or next((name for name in SPLITS if name in parts), None)
    if chosen is None:
        raise SourceError(
            f"{source.text!r} has the splits {', '.join(parts)}",
            expected="the split to read",
            cure=f"write {source.text}#{next(iter(parts))}",
        )
    table = parts[chosen]
    classes = {name: kind for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)}
    numbers = {name: class_numbers(source, table[name], kind, name) for name, kind in classes.items()}
    for at, row in enumerate(table):
        named = {
            name: None if (number := numbers[name][at]) is None else kind.int2str(number)
            for name, kind in classes.items()
        }
        yield {**row, **named}
