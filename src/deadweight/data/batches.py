"""What people's loaders yield, told apart: inputs and labels of a dictionary, and what is no loader at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deadweight.errors import InputError

_IMAGES, _LABELS = ("image", "images", "img"), ("label", "labels", "target", "targets")


def check_loader(batches: Any, *, whole: bool = False) -> None:
    """Refuse what yields single items, or is none, where batches are expected.

    Parameters
    ----------
    whole:
        A tensor is taken as one batch.

    Raises
    ------
    InputError
        A tensor, a data set, a model, a source string; the message says how to make a loader of it.
    """
    if isinstance(batches, Tensor):
        if whole:
            return
        given, cure = f"a tensor of shape {tuple(batches.shape)}", "put it into a list: [images], or [(images, labels)]"
    elif isinstance(batches, str):
        given, cure = f"the text {batches!r}", "dw.load_images(…) reads a source; a DataLoader makes batches of it"
    elif _one_at_a_time(batches):
        given = f"a data set, {type(batches).__name__}, which gives one item at a time"
        cure = "torch.utils.data.DataLoader(dataset, batch_size=32)"
    elif isinstance(batches, Mapping):
        given, cure = f"one dictionary, of {', '.join(map(str, batches))}", "put it into a list: [batch]"
    elif not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        given, cure = f"a {type(batches).__name__}", "give a list of batches, or a DataLoader"
    else:
        return
    raise InputError(
        f"batches is {given}",
        expected="batches, one after another: (inputs,), (inputs, labels), {'image': …, 'label': …}, or bare inputs",
        cure=cure,
    )


def _one_at_a_time(items: Any) -> bool:
    """Whether it is a set whose first item is one image with one label, rather than a batch."""
    if isinstance(items, list | tuple | Mapping) or not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        return False
    first = items[0] if len(items) else None
    parts = inputs_and_labels(first) if isinstance(first, Mapping) else first
    if not isinstance(parts, list | tuple) or not parts:
        return not isinstance(parts, Tensor) or parts.dim() == 3
    label = parts[1] if len(parts) > 1 else None
    alone = label.dim() == 0 if isinstance(label, Tensor) else isinstance(label, int)
    return alone or (isinstance(parts[0], Tensor) and parts[0].dim() == 3 and label is None)


def inputs_and_labels(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """(inputs, labels) of a dictionary: ``{"image": …, "label": …}`` is an image and its class; of
    ``{"pixel_values": …, "labels": …}`` the rest is what the model is called with. Labels of tokens are no classes.

    >>> inputs_and_labels({"image": "pixels", "label": 3, "path": "a.png"})
    ('pixels', 3)
    """
    label = next((batch[name] for name in _LABELS if name in batch), None)
    label = None if isinstance(label, Tensor) and label.dim() > 1 else label
    image = next((batch[name] for name in _IMAGES if name in batch), None)
    return image if image is not None else {n: v for n, v in batch.items() if n not in _LABELS}, label


__all__ = ["check_loader", "inputs_and_labels"]
