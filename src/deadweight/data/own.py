"""`python:MODULE:FUNCTION` as images: a data set or loader of one's own, or one for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deadweight.data.folders import small
from deadweight.data.images import Gallery, digest
from deadweight.errors import SourceError
from deadweight.own_code import call
from deadweight.source import Source

_IMAGE, _LABEL = ("image", "images", "pixel_values", "img", "x"), ("label", "labels", "target", "targets", "y")
_TRAIN, _HELD_OUT = ("train", "training"), ("validation", "val", "test")


def gallery(source: Source) -> Gallery:
    """Images of the user's own: items (image, label) or dictionaries that name them, ``{"image": …, "label": …}``.

    An image is a tensor as the model takes it, or a picture. The function returns a data set, a DataLoader, or two of
    them: a pair, or a dictionary ``{"train": …, "validation": …}``. Raises :class:`SourceError` that says what it
    returned instead.
    """
    parts = [_items(part, source) for part in _parts(call(source))]
    items = _Joined(tuple(parts))
    labels = tuple(items.label(index, source) for index in range(len(items)))
    first = len(parts[0])
    classes = next((names for part in parts if (names := getattr(part, "classes", None))), None)
    return Gallery(
        open=lambda index: items[index][0],
        labels=labels,
        classes=tuple(map(str, classes if classes is not None else range(max(labels, default=0) + 1))),
        validation=tuple(range(first, len(items))) if len(parts) > 1 else None,
        fingerprint=lambda used: _fingerprint(items, labels, used),
        transform=small,
    )


@dataclass(frozen=True)
class _Joined:
    """The parts one after another."""

    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        part, at = self._place(index)
        return _pair(part[at])

    def label(self, index: int, source: Source) -> int:
        """From ``targets``, where the set has them, without opening the picture."""
        part, at = self._place(index)
        targets = getattr(part, "targets", None)
        try:
            return int(targets[at] if targets is not None and len(targets) == len(part) else _pair(part[at])[1])
        except (TypeError, ValueError, IndexError, KeyError) as problem:
            raise SourceError(
                f"{source.text!r}: item {index} is {_said(part[at])} ({problem})",
                expected="an image and the number of its class: (image, label), or {'image': …, 'label': …}",
                cure="return such items from the data set",
            ) from problem

    def _place(self, index: int) -> tuple[Any, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)


def _parts(found: Any) -> list[Any]:
    if isinstance(found, Mapping):
        train = next((found[name] for name in _TRAIN if name in found), None)
        held = next((found[name] for name in _HELD_OUT if name in found), None)
        if held is not None:
            return [part for part in (train, held) if part is not None]
    pair = isinstance(found, tuple) and len(found) == 2 and not any(isinstance(part, Tensor) for part in found)
    return list(found) if pair else [found]


def _items(part: Any, source: Source) -> Any:
    """A sequence of items: of a loader, its data set; what can only be gone through, gone through once."""
    items = getattr(part, "dataset", part)
    if isinstance(items, Tensor) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        if isinstance(items, Tensor) or not hasattr(part, "__iter__"):
            raise SourceError(
                f"{source.text!r} returned {_said(part)}",
                expected="a data set of (image, label), a DataLoader of one, or a pair of them: training and held out",
                cure="torch.utils.data.TensorDataset(images, labels) makes a data set of tensors",
            )
        items = [pair for batch in part for pair in zip(*_pair(batch), strict=True)]
    if not len(items):
        raise SourceError(f"{source.text!r} returned no items", expected="at least two")
    return items


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image, label = (next((item[name] for name in names if name in item), None) for names in (_IMAGE, _LABEL))
        if image is None or label is None:
            raise KeyError(f"its keys are {', '.join(map(str, item))}")
        return image, label
    return item[0], item[1]


def _said(thing: Any) -> str:
    return f"a tensor of shape {tuple(thing.shape)}" if isinstance(thing, Tensor) else f"a {type(thing).__name__}"


def _fingerprint(items: _Joined, labels: Sequence[int], used: Sequence[int]) -> str:
    contents = []
    for index in used:
        image = items[index][0]
        contents.append(image.contiguous().numpy().tobytes() if isinstance(image, Tensor) else image.tobytes())
    return digest([*contents, repr([labels[index] for index in used]).encode()])


__all__ = ["gallery"]
