"""Symmetric matrices kept as their upper triangles, row by row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deadweight.probes.products import rows_product

Floats = npt.NDArray[np.float64]

_BANDS, _BAND = 4, 64  # parts a product is done in; rows of a part, at least
_BLOCK = 64  # rows mirrored at a time


def packed(symmetric_DD: Floats) -> Floats:
    """(D(D+1)/2,) upper triangle, row by row; what lies below the diagonal is not read."""
    return np.concatenate([symmetric_DD[i, i:] for i in range(len(symmetric_DD))])


def unpacked(triangle: Floats, width: int) -> Floats:
    """(D, D) symmetric matrix of an upper triangle."""
    full, start = np.empty((width, width)), 0
    for i in range(width):
        full[i, i:] = triangle[start : start + width - i]
        start += width - i
    for start in range(0, width, _BLOCK):
        stop = min(start + _BLOCK, width)
        full[stop:, start:stop] = full[start:stop, stop:].T
        corner = full[start:stop, start:stop]
        below = np.tril_indices(stop - start, -1)
        corner[below] = corner.T[below]
    return full


class UpperTriangles:
    """Several symmetric (D, D) float64 sums under way, in bands of rows: little below the diagonal is computed or kept.

    A band holds its rows from the column of the first one's diagonal on; the bands of a sum lie end to end.
    """

    def __init__(self, sums: int, width: int) -> None:
        band = max(_BAND, -(-width // _BANDS))
        self._width = width
        self._starts = list(range(0, width, band))
        heights = [min(band, width - start) for start in self._starts]
        sizes = [height * (width - start) for height, start in zip(heights, self._starts, strict=True)]
        self._flat = torch.zeros(sums, sum(sizes), dtype=torch.float64, device="cpu")
        self._bands = [
            [part.view(height, -1) for part, height in zip(flat.split(sizes), heights, strict=True)]
            for flat in self._flat
        ]

    def add(self, which: int, rows_DT: Tensor, weight: float = 1.0) -> None:
        """Add weight · rows_DT @ rows_DTᵀ to one of the sums, a product in the rows' own precision."""
        for start, band in zip(self._starts, self._bands[which], strict=True):
            band.add_(rows_product(rows_DT[start : start + len(band)], rows_DT[start:]).to(band), alpha=weight)

    def packed(self) -> Floats:
        """(sums, D(D+1)/2) as of :func:`packed`, in the same memory: nothing can be added any more."""
        sums, held = self._flat.shape
        size, flat, stop = self._width * (self._width + 1) // 2, self._flat.numpy().reshape(-1), 0
        for which in range(sums):
            source = which * held
            for start, band in zip(self._starts, self._bands[which], strict=True):
                for i in range(len(band)):
                    count = self._width - start - i
                    flat[stop : stop + count] = flat[source + i : source + i + count]
                    stop, source = stop + count, source + band.shape[1]
        return flat[: sums * size].reshape(sums, size)
