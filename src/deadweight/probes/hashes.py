"""What stands for an item: a hash of its id or of its content, and everything random that follows from it.

Folds, the sample and the bootstrap weights of an item depend on this hash alone, so order, batch size and shards
never change them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deadweight.errors import InputError

Hashes = npt.NDArray[np.uint64]
REPLICATES = 200

# P(X <= k) of a Poisson variable with mean 1; beyond twelve the probability is below 2^-32.
_POISSON_CDF = np.cumsum(np.exp(-1.0) / np.cumprod([1.0, *range(1, 13)]))


def item_hashes(inputs: Tensor | Mapping[str, Tensor], ids: Iterable[object] | None = None) -> Hashes:
    """(B,) 64-bit blake2b of each item's id if given, else of its input bytes.

    Of tokenised text that carries an ``attention_mask`` the unmasked tokens count, so padding does not.

    Raises
    ------
    InputError
        Another number of ids than of items.
    """
    size = batch_size(inputs)
    if ids is not None:
        names = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if len(names) != size:
            raise InputError(f"{len(names)} ids for {size} inputs", expected="one id an item")
        return np.array([_digest([str(name).encode()]) for name in names], dtype=np.uint64)
    if isinstance(inputs, Tensor):
        held = inputs.detach().cpu()
        return np.array([_digest([_bytes(held[i])]) for i in range(size)], dtype=np.uint64)
    parts = {name: inputs[name].detach().cpu() for name in sorted(inputs)}
    mask = parts.pop("attention_mask", None)
    return np.array(
        [
            _digest(_bytes(_unmasked(part[i], None if mask is None else mask[i])) for part in parts.values())
            for i in range(size)
        ],
        dtype=np.uint64,
    )


def batch_size(inputs: Tensor | Mapping[str, Tensor]) -> int:
    """Number of items in a batch of inputs."""
    return len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))


def _unmasked(item: Tensor, mask: Tensor | None) -> Tensor:
    return item[mask.bool()] if mask is not None and mask.shape == item.shape else item


def _bytes(item: Tensor) -> bytes:
    return item.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def folds(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """(B,) which of two folds each item is in: the lowest bit, which the order of the hashes does not follow."""
    return (hashes & np.uint64(1)).astype(np.bool_)


def poisson_weights(hashes: Hashes | Sequence[int], replicates: int = REPLICATES) -> npt.NDArray[np.float64]:
    """(replicates, B) Poisson(1) counts: how often each bootstrap replicate draws each item.

    The counts come from the raw bits of a counter-based generator (Philox) keyed by the hash, by inversion.
    """
    bits = np.empty((len(hashes), replicates), dtype=np.uint64)
    for i, key in enumerate(hashes):
        bits[i] = np.random.Philox(key=int(key)).random_raw(replicates)
    return np.searchsorted(_POISSON_CDF, bits * 2.0**-64, side="right").T.astype(np.float64)
