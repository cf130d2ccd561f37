"""Values that belong together count as one: sums by cluster, and what leaving each cluster out changes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from deadweight.errors import InputError
from deadweight.statistics.estimate import Floats


def codes(clusters: Sequence[Hashable], n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n,) cluster of each value, numbered from 0 in order of appearance."""
    if len(clusters) != n:
        raise InputError(f"{len(clusters)} cluster labels for {n} values", expected="one label for each value")
    seen: dict[Hashable, int] = {}
    return np.asarray([seen.setdefault(label, len(seen)) for label in clusters], dtype=np.int64)


def grouped(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """(clusters,) sums and sizes."""
    groups = codes(clusters, len(values))
    return np.bincount(groups, weights=values).astype(np.float64), np.bincount(groups).astype(np.float64)


def pseudo_values(numerators: Floats, denominators: Floats) -> Floats:
    """(G,) the jackknife's pseudo-values of Σ numerators / Σ denominators (Tukey 1958).

    Their mean estimates the ratio, and they are nearly independent, so that what holds for a mean of G values holds
    for the ratio. With equal denominators they are the values themselves.
    """
    groups = len(numerators)
    total, whole = numerators.sum(), denominators.sum()
    without = (total - numerators) / (whole - denominators)
    result: Floats = groups * total / whole - (groups - 1) * without
    return result
