"""What can be read off a layer: decisions, made on a sample and never by the fold an item is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deadweight.probes.hashes import Hashes, folds
from deadweight.probes.layer import Batch
from deadweight.probes.probe import ReadoutProbe

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class NearestMeans:
    """Cross-fitted nearest-class-mean decisions, one an item of the sample.

    scored:  the other fold holds at least one item.
    correct: the nearest mean is that of the item's class (a class the other fold lacks counts as wrong).
    margin:  (d²(nearest wrong mean) − d²(true mean)) / (2 ‖μ_a − μ_b‖): signed distance to the boundary between
             the two; NaN where the other fold lacks either.
    """

    scored: npt.NDArray[np.bool_]
    correct: npt.NDArray[np.bool_]
    margin: Floats


def nearest_class_means(features_BD: Features, labels: Labels, fold: npt.NDArray[np.bool_]) -> NearestMeans:
    """Class means from one fold judge the items of the other, both ways round; Euclidean distance, float64."""
    items = len(labels)
    scored, correct = np.zeros(items, dtype=np.bool_), np.zeros(items, dtype=np.bool_)
    margin = np.full(items, np.nan)
    values_BD = features_BD.astype(np.float64)
    for judged in (fold, ~fold):
        if judged.any() and not judged.all():
            classes, means_CD = class_means(values_BD[~judged], labels[~judged])
            scored[judged] = True
            correct[judged], margin[judged] = _judge(values_BD[judged], labels[judged], classes, means_CD)
    return NearestMeans(scored, correct, margin)


def class_means(values_BD: Floats, labels: Labels) -> tuple[Labels, Floats]:
    """(C,) sorted classes and their (C, D) means."""
    order = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return classes, np.add.reduceat(values_BD[order], starts) / counts[:, None]


def _judge(
    values_BD: Floats, labels: Labels, classes: Labels, means_CD: Floats
) -> tuple[npt.NDArray[np.bool_], Floats]:
    place = np.clip(np.searchsorted(classes, labels), 0, len(classes) - 1)
    known = classes[place] == labels
    # |x - m|² less |x|², which all classes share; about the means' centre, so that no digits cancel.
    centre = means_CD.mean(0)
    values_BD, means_CD = values_BD - centre, means_CD - centre
    if np.linalg.norm(means_CD) <= 1e-12 * np.linalg.norm(centre):  # rounding tells no classes apart: a plain tie
        means_CD = np.zeros_like(means_CD)
    distance_BC = (means_CD**2).sum(1) - 2 * values_BD @ means_CD.T
    items = np.arange(len(labels))
    correct = known & (classes[distance_BC.argmin(1)] == labels)
    if len(classes) < 2:
        return correct, np.full(len(labels), np.nan)
    true = distance_BC[items, place]
    distance_BC[items, place] = np.inf
    wrong = distance_BC.argmin(1)
    apart = np.linalg.norm(means_CD[place] - means_CD[wrong], axis=1)
    gap = distance_BC[items, wrong] - true
    margin = np.divide(gap, 2 * apart, out=np.full(len(labels), np.nan), where=known & (apart > 0))
    return correct, margin


@dataclass(frozen=True, eq=False)
class FeatureSample:
    """Pooled features of the `size` labelled items with the smallest hashes: a commutative monoid.

    hashes, labels: (n,), sorted by hash, then label; features: name -> (n, D) float32, in the same order.
    seen:           labelled items seen, of which n <= size are kept.
    Memory is at most size · D float32 a feature.
    """

    size: int = SAMPLE
    seen: int = 0
    hashes: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    labels: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    features: Mapping[str, Features] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, size: int = SAMPLE) -> FeatureSample:
        """The state after this one batch; items without labels leave no trace."""
        if batch.labels is None or not len(batch.labels) or not batch.features:
            return cls(size)
        order = np.lexsort((batch.labels, batch.hashes))[:size]
        features = {name: values[order] for name, values in batch.features.items()}
        return cls(size, len(batch.labels), batch.hashes[order], batch.labels[order], features)

    def update(self, batch: Batch) -> FeatureSample:
        """The state after one more batch; this one is left as it was."""
        return self.merge(FeatureSample.of(batch, self.size))

    def merge(self, other: FeatureSample) -> FeatureSample:
        """The state of both streams; pure."""
        size = min(self.size, other.size)
        if not other.seen or not self.seen:
            one = self if self.seen else other
            kept = {name: values[:size] for name, values in one.features.items()}
            return FeatureSample(size, one.seen, one.hashes[:size], one.labels[:size], kept)
        hashes = np.concatenate([self.hashes, other.hashes])
        labels = np.concatenate([self.labels, other.labels])
        order = np.lexsort((labels, hashes))[:size]
        seen = self.seen + other.seen
        if np.array_equal(order, np.arange(len(self.hashes))):  # full, and nothing new is small enough
            return FeatureSample(size, seen, self.hashes, self.labels, self.features)
        features = {
            name: np.concatenate([values, other.features[name]])[order] for name, values in self.features.items()
        }
        return FeatureSample(size, seen, hashes[order], labels[order], features)

    def compute(self) -> dict[str, NearestMeans]:
        """feature -> cross-fitted nearest-class-mean decisions."""
        fold = folds(self.hashes)
        return {name: nearest_class_means(values, self.labels, fold) for name, values in self.features.items()}

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything the state holds, as named arrays."""
        sizes = np.array([self.size, self.seen], dtype=np.int64)
        held: dict[str, npt.NDArray[np.generic]] = {"sizes": sizes, "hashes": self.hashes, "labels": self.labels}
        return held | {f"feature.{name}": value for name, value in self.features.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> FeatureSample:
        features = {
            name.removeprefix("feature."): value.astype(np.float32)
            for name, value in arrays.items()
            if name.startswith("feature.")
        }
        size, seen = (int(value) for value in arrays["sizes"])
        return cls(size, seen, arrays["hashes"].astype(np.uint64), arrays["labels"].astype(np.int64), features)


def _right(means: NearestMeans) -> Floats:
    return np.where(means.scored, means.correct.astype(np.float64), np.nan)


NCM_ACCURACY = ReadoutProbe(
    "ncm_accuracy", "accuracy of the nearest class mean, each image judged by the fold that lacks it", _right
)
MARGIN = ReadoutProbe(
    "margin",
    "mean signed distance to the boundary between the true and the nearest wrong class mean",
    lambda means: means.margin,
)
