"""Pictures of any depth as the 8 bits a channel that models and their preprocessing are made for."""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE = 258  # the tag of TIFF
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


class UnknownScaleError(ValueError):
    """A picture whose values nothing gives a scale for."""


def deepest_value(picture: Image.Image) -> int | None:
    """The largest value of a grey picture of 16 bits, None for every other picture."""
    if picture.mode not in _DEEP or _bits(picture) < 16:
        return None
    return int(np.asarray(picture).max())


def eight_bits(picture: Image.Image, bits: int | None = None) -> Image.Image:
    """The picture with 8 bits a channel, its darkest and brightest value kept: v · 255 / (2^b - 1), rounded.

    Parameters
    ----------
    bits:
        b of grey pictures stored in 16 bits; by default what the file says: 16, or less in some TIFF files.

    Raises
    ------
    UnknownScaleError
        Values of 32 bits, floats outside [0, 1], values above 2^b - 1, and colour spaces Pillow does not convert.

    >>> import numpy as np
    >>> list(eight_bits(Image.fromarray(np.array([[0, 257, 65535]], np.uint16))).getdata())
    [0, 1, 255]
    """
    if picture.mode in _DEEP or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return _scaled(np.asarray(picture), (1 << (bits or _bits(picture))) - 1)
    if picture.mode == "F":
        return _scaled(np.asarray(picture), 1)
    if picture.mode == "I":
        raise UnknownScaleError("whole numbers of 32 bits")
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA")
    if picture.mode == "LAB":
        raise UnknownScaleError("colours in CIELAB")
    return picture


def _bits(picture: Image.Image) -> int:
    stored = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return int(stored[0])


def _scaled(values: np.ndarray, largest: int) -> Image.Image:
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > largest:
        raise UnknownScaleError(f"values from {values.min():g} to {values.max():g}, outside 0 … {largest}")
    return Image.fromarray(np.rint(values * (255 / largest)).astype(np.uint8))
