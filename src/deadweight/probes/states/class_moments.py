"""Count, mean and scatter of every class, merged by Chan, Golub and LeVeque's pairwise update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deadweight.probes.layer import HEAD_INPUT
from deadweight.probes.packed_symmetric import Floats, packed, unpacked
from deadweight.probes.states.batch import Batch

Labels = npt.NDArray[np.int64]

COVARIANCE_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Count, mean and scatter of every class for several features: a commutative monoid, identity ``ClassMoments()``.

    classes:  (C,) sorted labels; counts: (C,) items of each.
    means:    feature -> (C, D); for what the head is given (`HEAD_INPUT`) they are all that is kept.
    scatters: feature -> (C, D(D+1)/2) packed upper triangles of Σ (x − μ_c)(x − μ_c)ᵀ, one a class; where these
              would take more than `COVARIANCE_BYTES` over all features, (1, …): their sum over classes, which gives
              the same Σ_W as long as all classes have equally many items.
    Memory is C·D + D²/2 (or C·D²/2) float64 per feature, whatever the number of items.
    """

    classes: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    counts: Floats = field(default_factory=lambda: np.empty(0))
    means: Mapping[str, Floats] = field(default_factory=dict)
    scatters: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch) -> ClassMoments:
        """The state after this one batch; items without labels leave no trace."""
        if batch.labels is None or not len(batch.labels) or not batch.features:
            return cls()
        classes, inverse, counts = np.unique(batch.labels, return_inverse=True, return_counts=True)
        pooled = _pools(len(classes), [value.shape[1] for name, value in batch.features.items() if name != HEAD_INPUT])
        member_CB = (inverse[None] == np.arange(len(classes))[:, None]).astype(np.float64)
        means, scatters = {}, {}
        for name, values in batch.features.items():
            values_BD = values.astype(np.float64)
            means[name] = member_CB @ values_BD / counts[:, None]
            if name == HEAD_INPUT:
                continue
            centred_BD = values_BD - means[name][inverse]
            groups = [centred_BD] if pooled else [centred_BD[inverse == c] for c in range(len(classes))]
            scatters[name] = np.stack([packed(group.T @ group) for group in groups])
        return cls(classes.astype(np.int64), counts.astype(np.float64), means, scatters)

    @property
    def pooled(self) -> bool:
        """Whether only the sum of the classes' scatters is kept."""
        return len(self.classes) > 1 and any(len(value) == 1 for value in self.scatters.values())

    def update(self, batch: Batch) -> ClassMoments:
        """The state after one more batch; this one is left as it was."""
        return self.merge(ClassMoments.of(batch))

    def merge(self, other: ClassMoments) -> ClassMoments:
        """The state of both streams, by Chan, Golub and LeVeque's pairwise update; pure."""
        if not len(other.classes) or not len(self.classes):
            return self if len(self.classes) else other
        classes = np.union1d(self.classes, other.classes)
        here, there = np.searchsorted(classes, self.classes), np.searchsorted(classes, other.classes)
        n_one, n_two = _placed(self.counts, here, len(classes)), _placed(other.counts, there, len(classes))
        share = n_two / (n_one + n_two)
        pooled = _pools(len(classes), [mean.shape[1] for name, mean in self.means.items() if name != HEAD_INPUT])
        means, scatters = {}, {}
        for name in self.means:
            one, two = (
                _placed(self.means[name], here, len(classes)),
                _placed(other.means[name], there, len(classes)),
            )
            apart = two - one
            means[name] = one + share[:, None] * apart
            if name == HEAD_INPUT:
                continue
            between = apart * np.sqrt(n_one * share)[:, None]
            if pooled:
                sums = self.scatters[name].sum(0, keepdims=True) + other.scatters[name].sum(0, keepdims=True)
                scatters[name] = sums + packed(between.T @ between)[None]
                continue
            total = _placed(self.scatters[name], here, len(classes))
            total[there] += other.scatters[name]
            for c in np.flatnonzero((n_one > 0) & (n_two > 0)):
                total[c] += packed(np.outer(between[c], between[c]))
            scatters[name] = total
        return ClassMoments(classes, n_one + n_two, means, scatters)

    def within(self, feature: str) -> Floats:
        """(D, D) Σ_W: the classes' covariances averaged with equal weight (by items where only their sum is kept)."""
        scatter = self.scatters[feature]
        width = self.means[feature].shape[1]
        if self.pooled:
            return unpacked(scatter[0] / self.counts.sum(), width)
        return unpacked((scatter / self.counts[:, None]).mean(0), width)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything the state holds, as named arrays."""
        held: dict[str, npt.NDArray[np.generic]] = {"classes": self.classes, "counts": self.counts}
        held |= {f"mean.{name}": value for name, value in self.means.items()}
        return held | {f"scatter.{name}": value for name, value in self.scatters.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> ClassMoments:
        def part(kind: str) -> dict[str, Floats]:
            return {
                name.removeprefix(kind): value.astype(np.float64)
                for name, value in arrays.items()
                if name.startswith(kind)
            }

        return cls(
            arrays["classes"].astype(np.int64), arrays["counts"].astype(np.float64), part("mean."), part("scatter.")
        )


def _pools(classes: int, widths: list[int]) -> bool:
    """Whether `classes` packed float64 triangles of these widths are too large to keep one a class."""
    return classes > 1 and classes * sum(8 * width * (width + 1) // 2 for width in widths) > COVARIANCE_BYTES


def _placed(values: Floats, rows: npt.NDArray[np.intp], total: int) -> Floats:
    """`values` at `rows` of an array with `total` rows, zeros elsewhere."""
    placed = np.zeros((total, *values.shape[1:]))
    placed[rows] = values
    return placed
