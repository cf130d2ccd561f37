"""Symmetric matrices kept as their upper triangles, row by row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def packed(symmetric_DD: Floats) -> Floats:
    """(D(D+1)/2,) upper triangle, row by row; what lies below the diagonal is not read."""
    return np.concatenate([symmetric_DD[i, i:] for i in range(len(symmetric_DD))])


def unpacked(triangle: Floats, width: int) -> Floats:
    """(D, D) symmetric matrix of an upper triangle."""
    full, start = np.empty((width, width)), 0
    for i in range(width):
        full[i, i:] = full[i:, i] = triangle[start : start + width - i]
        start += width - i
    return full
