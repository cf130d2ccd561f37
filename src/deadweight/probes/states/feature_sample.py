"""A sample of labelled features that merges, and what can be read off it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from deadweight.probes.hashes import Hashes, folds
from deadweight.probes.layer import HEAD_INPUT, Labels
from deadweight.probes.states.batch import Batch
from deadweight.probes.states.readers import Features, NearestMeans, nearest_class_means, ridge_answers

SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Reading:
    """What a readout probe may use at one row: the sample's features there, and what follows from them.

    predicted: (n,) the model's own answers; -1 where it gives none.
    """

    features: Features
    labels: Labels
    fold: npt.NDArray[np.bool_]
    predicted: Labels

    @cached_property
    def nearest(self) -> NearestMeans:
        """Cross-fitted nearest-class-mean decisions."""
        return nearest_class_means(self.features, self.labels, self.fold)

    @cached_property
    def ridge(self) -> Labels:
        """Cross-fitted answers of a ridge classifier."""
        return ridge_answers(self.features, self.labels, self.fold)


@dataclass(frozen=True, eq=False)
class FeatureSample:
    """Pooled features of the `size` labelled items with the smallest hashes: a commutative monoid.

    hashes, labels: (n,), sorted by hash, then label; features: name -> (n, D) float32, in the same order.
    predicted:      (n,) the model's own answers, -1 where it has none.
    seen:           labelled items seen, of which n <= size are kept.
    Memory is at most size · D float32 a feature.
    """

    size: int = SAMPLE
    seen: int = 0
    hashes: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    labels: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    features: Mapping[str, Features] = field(default_factory=dict)
    predicted: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, batch: Batch, size: int = SAMPLE) -> FeatureSample:
        """The state after this one batch; items without labels leave no trace."""
        if batch.labels is None or not len(batch.labels) or not batch.features:
            return cls(size)
        order = np.lexsort((batch.labels, batch.hashes))[:size]
        features = {name: values[order] for name, values in batch.features.items() if name != HEAD_INPUT}
        answers = np.full(len(batch.labels), -1, dtype=np.int64) if batch.predicted is None else batch.predicted
        return cls(size, len(batch.labels), batch.hashes[order], batch.labels[order], features, answers[order])

    def update(self, batch: Batch) -> FeatureSample:
        """The state after one more batch; this one is left as it was."""
        return self.merge(FeatureSample.of(batch, self.size))

    def merge(self, other: FeatureSample) -> FeatureSample:
        """The state of both streams; pure."""
        size = min(self.size, other.size)
        if not other.seen or not self.seen:
            one = self if self.seen else other
            kept = {name: values[:size] for name, values in one.features.items()}
            return FeatureSample(size, one.seen, one.hashes[:size], one.labels[:size], kept, one.predicted[:size])
        hashes = np.concatenate([self.hashes, other.hashes])
        labels = np.concatenate([self.labels, other.labels])
        order = np.lexsort((labels, hashes))[:size]
        seen = self.seen + other.seen
        if np.array_equal(order, np.arange(len(self.hashes))):  # full, and nothing new is small enough
            return FeatureSample(size, seen, self.hashes, self.labels, self.features, self.predicted)
        features = {
            name: np.concatenate([values, other.features[name]])[order] for name, values in self.features.items()
        }
        predicted = np.concatenate([self.predicted, other.predicted])[order]
        return FeatureSample(size, seen, hashes[order], labels[order], features, predicted)

    def reading(self, feature: str) -> Reading | None:
        """What can be read off `feature`; None where the sample does not hold it."""
        values = self.features.get(feature)
        return None if values is None else Reading(values, self.labels, folds(self.hashes), self.predicted)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything the state holds, as named arrays."""
        sizes = np.array([self.size, self.seen], dtype=np.int64)
        held: dict[str, npt.NDArray[np.generic]] = {
            "sizes": sizes, "hashes": self.hashes, "labels": self.labels, "predicted": self.predicted,
        }  # fmt: skip
        return held | {f"feature.{name}": value for name, value in self.features.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> FeatureSample:
        features = {
            name.removeprefix("feature."): value.astype(np.float32)
            for name, value in arrays.items()
            if name.startswith("feature.")
        }
        size, seen = (int(value) for value in arrays["sizes"])
        labels, predicted = arrays["labels"].astype(np.int64), arrays["predicted"].astype(np.int64)
        return cls(size, seen, arrays["hashes"].astype(np.uint64), labels, features, predicted)
