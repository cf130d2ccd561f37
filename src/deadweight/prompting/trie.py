"""The distinct prefixes of many token sequences, in depth-first order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """One node a distinct prefix, numbered depth first.

    `token`, `depth` [nodes]: the node's token and its position in the sequence. `end` [nodes]: one past the last
    node of the node's subtree, so that u is v or an ancestor of v exactly when ``u <= v < end[u]``.
    """

    token: Ints
    depth: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.token)

    def visible(self, queries: Ints, keys: Ints, window: int | None = None) -> NDArray[np.bool_]:
        """[queries, keys]: which keys are ancestors of (or are) each query, at most ``window - 1`` tokens back."""
        seen: NDArray[np.bool_] = (keys[None, :] <= queries[:, None]) & (queries[:, None] < self.end[keys][None, :])
        if window is not None:
            seen &= self.depth[queries][:, None] - self.depth[keys][None, :] < window
        return seen


def build_trie(sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> tuple[Trie, list[Ints]]:
    """The trie of `sequences`, and for each of them its nodes from position ``starts[i]`` to its end.

    Sorting puts the sequences in depth-first order, so that the length of the prefix each shares with the one
    before it is all there is to know: the rest of it are new nodes.
    """
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    # Big-endian bytes compare like the numbers themselves, at the speed of memcmp.
    order = sorted(range(len(arrays)), key=[array.astype(">u4").tobytes() for array in arrays].__getitem__)
    wanted: list[Ints] = [np.empty(0, dtype=np.int64)] * len(arrays)
    tokens: list[Ints] = []
    depths: list[Ints] = []
    ends: list[int] = []
    path: list[int] = []
    previous = np.empty(0, dtype=np.int64)
    for index in order:
        array = arrays[index]
        shared = _common_prefix(previous, array)
        for node in path[shared:]:
            ends[node] = len(ends)
        del path[shared:]
        new = range(len(ends), len(ends) + len(array) - shared)
        path.extend(new)
        ends.extend([0] * len(new))
        tokens.append(array[shared:])
        depths.append(np.arange(shared, len(array)))
        wanted[index] = np.asarray(path[starts[index] :], dtype=np.int64)
        previous = array
    for node in path:
        ends[node] = len(ends)
    empty = [np.empty(0, dtype=np.int64)]
    trie = Trie(np.concatenate(tokens or empty), np.concatenate(depths or empty), np.asarray(ends, dtype=np.int64))
    return trie, wanted


def _common_prefix(left: Ints, right: Ints) -> int:
    size = min(len(left), len(right))
    differ = np.flatnonzero(left[:size] != right[:size])
    return int(differ[0]) if len(differ) else size
