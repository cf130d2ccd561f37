"""Image sets of the Hugging Face hub, or a local folder in a format `datasets` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from deadweight.data.eight_bits import UnknownScaleError, eight_bits
from deadweight.data.folders import small
from deadweight.data.images import Gallery, digest
from deadweight.errors import SourceError
from deadweight.network import hub_reach
from deadweight.registry import did_you_mean
from deadweight.source import Source


def load_parts(source: Source, cure: str) -> tuple[Any, str | None]:
    """The splits of ``hf:DATASET[:CONFIG][@REV][#SPLIT]`` by name, and the split asked for, which is one of them."""
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
            cure=cure,
        ) from problem
    if split is not None and split not in parts:
        raise SourceError(
            f"{source.text!r} has no split {split!r}",
            expected="one of its splits",
            cure=did_you_mean(split, list(parts)),
        )
    return parts, split


def gallery(source: Source) -> Gallery:
    """``hf:DATASET[:CONFIG][@REV][#SPLIT]`` with an image column and a class column, found by their declared types.

    With a split, its images alone are used, and a part of them held out. Rows without a class are left out.
    """
    import datasets

    parts, split = load_parts(source, "without network use folder:PATH with class folders")
    parts = parts if split is None else {split: parts[split]}
    held = next((part for part in ("validation", "val", "test") if part in parts), None)
    names = ["train", held] if held and "train" in parts else [next(iter(parts))]
    features = parts[names[0]].features
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label = next((key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if image is None or label is None:
        raise SourceError(
            f"{source.text!r} has the columns {', '.join(features)}",
            expected="one of type Image and one of type ClassLabel",
        )
    whole = datasets.concatenate_datasets([parts[part] for part in names])
    first = len(parts[names[0]])
    numbers = class_numbers(source, whole[label], features[label], label)
    rows = [row for row, number in enumerate(numbers) if number is not None]
    labels = tuple(number for number in numbers if number is not None)
    held_out = tuple(at for at, row in enumerate(rows) if row >= first)

    def opened(index: int) -> Image.Image:
        try:
            return eight_bits(whole[rows[index]][image])
        except UnknownScaleError as problem:
            raise SourceError(
                f"row {rows[index] + 1} of {source.text!r}: nothing says which value is white ({problem})",
                expected="8 or 16 bits a channel, or floats in [0, 1]",
            ) from problem

    def fingerprint(used: Sequence[int]) -> str:
        marks = "".join(str(parts[part]._fingerprint) for part in names)
        return digest([marks.encode(), repr([rows[index] for index in used]).encode()])

    missing = len(numbers) - len(rows)
    return Gallery(
        open=opened,
        labels=labels,
        classes=tuple(features[label].names),
        validation=held_out if held_out and len(held_out) < len(rows) else None,
        fingerprint=fingerprint,
        transform=small,
        notes=(f"{missing} rows without a class are left out",) if missing else (),
    )


def class_numbers(source: Source, values: Sequence[Any], kind: Any, column: str) -> list[int | None]:
    """The class of each row, None for rows without one: nothing there, or -1, as sets whose labels are secret have it.

    Raises :class:`SourceError` for a number that stands for no class.
    """
    known = len(kind.names)
    numbers = [None if value is None or value == -1 else int(value) for value in values]
    for row, number in enumerate(numbers, start=1):
        if number is not None and not 0 <= number < known:
            raise SourceError(
                f"row {row} of {source.text!r} has the class {number} in column {column!r}",
                expected=f"0 to {known - 1}, for its {known} classes, or -1 for no class",
                cure="declare the names of all classes in the data set",
            )
    return numbers
