"""Labelled images by source string: embedded sets, class folders, `datasets`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deadweight.data.classes import ClassNames, Head, HeadNames, aligned, reordered
from deadweight.data.limit import check_limit
from deadweight.errors import InputError, SourceError
from deadweight.registry import Registry, did_you_mean
from deadweight.source import Source, check_options, parse_source
from deadweight.source_options import IMAGE_OPTIONS

Transform = Callable[[Image.Image], Tensor]


class ImageSet(Protocol):
    """A map-style dataset of (float image (C, H, W), label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


@dataclass(frozen=True)
class ImageData:
    """Training and held-out images.

    classes:         the names of the labels 0, 1, …; they know how they stand to a model's outputs.
    channels, size:  of every image, (height, width).
    fingerprint:     a digest of the content, so that a record says what it was computed from.
    preparation:     one line on how pictures become tensors.
    notes:           what a reader must know about what was read: pictures left out, the order of the classes.
    """

    name: str
    train: ImageSet = field(repr=False)
    validation: ImageSet = field(repr=False)
    classes: ClassNames
    channels: int
    size: tuple[int, int]
    fingerprint: str
    preparation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures that are opened when asked for, with their labels: what every source boils down to."""

    open: Callable[[int], Image.Image | Tensor]
    labels: Sequence[int]
    indices: Sequence[int]
    transform: Transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        at = self.indices[index]
        found = self.open(at)
        prepared = found if isinstance(found, Tensor) else self.transform(found)  # a tensor is prepared already
        return prepared, int(self.labels[at])


@dataclass(frozen=True)
class Gallery:
    """What a source offers before it is split: `validation` is None where the source has no split of its own."""

    open: Callable[[int], Image.Image | Tensor]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    validation: tuple[int, ...] | None
    fingerprint: Callable[[Sequence[int]], str]
    transform: Transform
    check: Callable[[Sequence[int]], None] = lambda indices: None
    notes: tuple[str, ...] = ()


class DataNote(UserWarning):
    """Something about the data that their reader should know: images left out, a class that a part lacks."""


IMAGE_SOURCES: Registry[Callable[[Source], Gallery]] = Registry("image source")
IMAGE_SOURCES.add("embedded", "deadweight.data.embedded:gallery")
IMAGE_SOURCES.add("folder", "deadweight.data.folders:gallery")
IMAGE_SOURCES.add("python", "deadweight.data.own:gallery")
IMAGE_SOURCES.add("hf", "deadweight.data.hub:gallery")


def load_images(
    source: str,
    *,
    limit: int | None = None,
    transform: Transform | None = None,
    split_seed: int = 0,
    head: Head | None = None,
) -> ImageData:
    """Images and labels, split into training and held-out ones.

    Parameters
    ----------
    source:
        ``embedded:digits``, ``embedded:mnist5k``, ``folder:PATH`` (class folders, or ``train/`` and ``val/`` that
        hold them), ``hf:DATASET[:CONFIG][@REV]``, or ``python:MODULE:FUNCTION``, which returns a data set, a loader, or
        a pair of them. ``?classes=cat,dog`` puts the classes into another order, that of a model's outputs, and
        ``?classes=none`` says that they are not a model's.
    limit:
        At most so many images of each part, drawn evenly from the classes by `split_seed`.
    transform:
        Picture to tensor, e.g. ``dw.transform(model)``; by default the source's own small size, in [0, 1].
    split_seed:
        Of the 80/20 split, stratified by class, where the source has none.
    head:
        What a model's outputs are called (`deadweight.models.head_names`): labels are then the numbers of the outputs,
        whatever order the folders come in.

    Raises
    ------
    SourceError
        An unknown kind, an empty folder, an unreadable image: before anything is computed.
    InputError
        A limit below one; classes that are not the head's, as many or by their names.

    Examples
    --------
    >>> data = load_images("embedded:digits", limit=20)
    >>> image, label = data.train[0]
    >>> image.shape, len(data.train), len(data.classes)
    (torch.Size([1, 8, 8]), 20, 10)
    """
    parsed = parse_source(source, example="folder:pictures")
    if parsed.scheme not in IMAGE_SOURCES:
        raise SourceError(
            f"unknown kind of image source {parsed.scheme!r} in {source!r}",
            expected=f"one of {', '.join(f'{name}:' for name in IMAGE_SOURCES.names())}",
            cure=did_you_mean(parsed.scheme, IMAGE_SOURCES.names()),
        )
    check_limit(limit)
    if parsed.scheme in IMAGE_OPTIONS:
        check_options(parsed, IMAGE_OPTIONS[parsed.scheme])
    if isinstance(split_seed, bool) or not isinstance(split_seed, int) or split_seed < 0:
        raise InputError(f"split_seed = {split_seed!r}", expected="a whole number, 0 or more")
    gallery = IMAGE_SOURCES.get(parsed.scheme)(parsed)
    classes, places = reordered(gallery.classes, parsed)
    if head is not None:
        classes, onto = aligned(classes, HeadNames(*head))
        places = [onto[place] for place in places]
    train, validation = _split(gallery, split_seed)
    if not train or not validation:
        raise SourceError(
            f"{source!r} has {len(train)} images to train on and {len(validation)} held out",
            expected="some of each: at least one class of two images",
        )
    train, validation = (_limited(part, gallery.labels, limit, split_seed) for part in (train, validation))
    used = [*train, *validation]
    gallery.check(used)
    prepare = transform or gallery.transform
    labels = [places[label] for label in gallery.labels]
    parts = [Pictures(gallery.open, labels, part, prepare) for part in (train, validation)]
    image, _ = parts[1][0]
    for note in gallery.notes:
        warnings.warn(f"{source}: {note}", DataNote, stacklevel=2)
    return ImageData(
        name=source,
        train=parts[0],
        validation=parts[1],
        classes=classes,
        channels=int(image.shape[0]),
        size=(int(image.shape[1]), int(image.shape[2])),
        fingerprint=gallery.fingerprint(used),
        preparation=str(prepare) if hasattr(prepare, "settings") else "",
        notes=(*gallery.notes, classes.note) if classes.note else gallery.notes,
    )


def _split(gallery: Gallery, seed: int) -> tuple[list[int], list[int]]:
    everything = range(len(gallery.labels))
    if gallery.validation is not None:
        held_out = set(gallery.validation)
        return [i for i in everything if i not in held_out], sorted(held_out)
    generator = np.random.default_rng(seed)
    labels = np.asarray(gallery.labels)
    train: list[int] = []
    validation: list[int] = []
    for label in range(len(gallery.classes)):
        mine = generator.permutation(np.flatnonzero(labels == label)).tolist()
        held = max(1, round(len(mine) / 5)) if len(mine) > 1 else 0
        validation += mine[:held]
        train += mine[held:]
    return sorted(train), sorted(validation)


def _limited(indices: list[int], labels: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """At most `limit` of `indices`, class by class in turn, so that every class is met as often as it can be."""
    if limit is None or len(indices) <= limit:
        return indices
    generator = np.random.default_rng(seed)
    seen: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for index in generator.permutation(indices).tolist():
        turn = seen[labels[index]] = seen.get(labels[index], -1) + 1
        ranked.append((turn, len(ranked), index))
    return sorted(index for _, _, index in sorted(ranked)[:limit])


def as_tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
    """A small set held whole: images (N, C, H, W) float32, labels (N,) int64."""
    pairs = [images[index] for index in range(len(images))]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def digest(parts: Sequence[bytes | np.ndarray[Any, Any]]) -> str:
    """A short content digest."""
    total = hashlib.blake2b(digest_size=12)
    for part in parts:
        total.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return total.hexdigest()
