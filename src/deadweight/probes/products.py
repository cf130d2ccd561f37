"""Float32 products of a profile, through oneDNN where they run on a CPU.

torch gives float32 matrix products to MKL, which on processors that are not Intel's leaves half of the vector units
idle; oneDNN does not, and torch reaches it by a public name through a convolution of one by one. On a GPU the products
are torch's own, as precise as its setting for float32 products (``"highest"`` unless it was changed).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def rows_product(left_KT: Tensor, right_MT: Tensor) -> Tensor:
    """(K, M) left @ rightᵀ; fastest where both are contiguous."""
    if not _by_convolution(left_KT):
        return left_KT @ right_MT.mT
    pixels, channels = left_KT.shape
    image = left_KT.reshape(1, 1, pixels, channels).permute(0, 3, 1, 2)
    return functional.conv2d(image, right_MT[:, :, None, None])[0, :, 0].mT


def scores(query_BHNd: Tensor, key_BHMd: Tensor) -> Tensor:
    """(N, B, H, M) q · k of every pair, a head of an image at a time; in the order the fast way leaves them in."""
    if not _by_convolution(query_BHNd):
        return (query_BHNd @ key_BHMd.mT).permute(2, 0, 1, 3)
    items, heads, tokens, size = query_BHNd.shape
    keys, maps = key_BHMd.shape[2], items * heads
    image = query_BHNd.permute(2, 0, 1, 3).reshape(1, 1, tokens, maps * size).permute(0, 3, 1, 2)
    kernel = key_BHMd.reshape(maps * keys, size, 1, 1)
    products = functional.conv2d(image, kernel, groups=maps)[0, :, 0].mT
    return products.reshape(tokens, items, heads, keys)


def _by_convolution(values: Tensor) -> bool:
    """Whether torch would give a convolution of these values to oneDNN: on one thread it does not."""
    fitting = values.device.type == "cpu" and values.dtype == torch.float32
    return fitting and torch.get_num_threads() > 1 and _ONEDNN and bool(torch.backends.mkldnn.enabled)
