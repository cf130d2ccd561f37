"""What can be read off a layer: decisions, made on a sample and never by the fold an item is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import linalg

from deadweight.probes.hashes import Hashes, folds
from deadweight.probes.layer import HEAD_INPUT, Batch
from deadweight.probes.probe import ReadoutProbe, needs_head

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

SAMPLE = 4096
RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class NearestMeans:
    """Cross-fitted nearest-class-mean decisions, one per item of the sample.

    scored:  the other fold holds at least one item.
    answers: the class of the nearest mean; -1 where not scored.
    correct: it is the item's (a class the other fold lacks counts as wrong).
    margin:  (d²(nearest wrong mean) − d²(true mean)) / (2 ‖μ_a − μ_b‖): signed distance to the boundary between
             the two; NaN where the other fold lacks either.
    """

    scored: npt.NDArray[np.bool_]
    answers: Labels
    correct: npt.NDArray[np.bool_]
    margin: Floats


def nearest_class_means(features_BD: Features, labels: Labels, fold: npt.NDArray[np.bool_]) -> NearestMeans:
    """Class means from one fold judge the items of the other, both ways round; Euclidean distance, float64."""
    items = len(labels)
    scored, margin = np.zeros(items, dtype=np.bool_), np.full(items, np.nan)
    answers = np.full(items, -1, dtype=np.int64)
    values_BD = features_BD.astype(np.float64)
    for judged in (fold, ~fold):
        if judged.any() and not judged.all():
            classes, means_CD = class_means(values_BD[~judged], labels[~judged])
            scored[judged] = True
            answers[judged], margin[judged] = _judge(values_BD[judged], labels[judged], classes, means_CD)
    return NearestMeans(scored, answers, scored & (answers == labels), margin)


def ridge_answers(features_BD: Features, labels: Labels, fold: npt.NDArray[np.bool_]) -> Labels:
    """Class of each item by a ridge classifier fitted on the other fold: one-hot targets, features standardised,
    λ = 1e-3 · tr(G)/D, intercept unpenalised. -1 where the other fold is empty. Solved on the smaller side of the
    features, float64.
    """
    answers = np.full(len(labels), -1, dtype=np.int64)
    values_BD = features_BD.astype(np.float64)
    for judged in (fold, ~fold):
        if judged.any() and not judged.all():
            classes, place = np.unique(labels[~judged], return_inverse=True)
            wanted_BC = np.eye(len(classes))[place] - np.bincount(place) / len(place)
            mean = values_BD[~judged].mean(0)
            spread = values_BD[~judged].std(0)
            inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6 * np.abs(mean))
            train_BD, test_BD = (values_BD[~judged] - mean) * inverse, (values_BD[judged] - mean) * inverse
            penalty = max(RIDGE * float(np.square(train_BD).sum()) / train_BD.shape[1], np.finfo(float).tiny)
            scores_BC = test_BD @ _ridge(train_BD, wanted_BC, penalty) + np.bincount(place) / len(place)
            answers[judged] = classes[scores_BC.argmax(1)]
    return answers


def _ridge(inputs_BD: Floats, targets_BC: Floats, penalty: float) -> Floats:
    """(D, C) weights."""
    items, width = inputs_BD.shape
    if not inputs_BD.any():
        return np.zeros((width, targets_BC.shape[1]))
    if items < width:
        dual = linalg.solve(inputs_BD @ inputs_BD.T + penalty * np.eye(items), targets_BC, assume_a="pos")
        weights: Floats = inputs_BD.T @ dual
        return weights
    gram = inputs_BD.T @ inputs_BD + penalty * np.eye(width)
    weights = linalg.solve(gram, inputs_BD.T @ targets_BC, assume_a="pos")
    return weights


def class_means(values_BD: Floats, labels: Labels) -> tuple[Labels, Floats]:
    """(C,) sorted classes and their (C, D) means."""
    order = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return classes, np.add.reduceat(values_BD[order], starts) / counts[:, None]


def _judge(values_BD: Floats, labels: Labels, classes: Labels, means_CD: Floats) -> tuple[Labels, Floats]:
    """(answers, margins) of items held against class means."""
    place = np.clip(np.searchsorted(classes, labels), 0, len(classes) - 1)
    known = classes[place] == labels
    # |x - m|² less |x|², which all classes share; about the means' centre, so that no digits cancel.
    centre = means_CD.mean(0)
    values_BD, means_CD = values_BD - centre, means_CD - centre
    if np.linalg.norm(means_CD) <= 1e-12 * np.linalg.norm(centre):  # rounding tells no classes apart: a plain tie
        means_CD = np.zeros_like(means_CD)
    distance_BC = (means_CD**2).sum(1) - 2 * values_BD @ means_CD.T
    items = np.arange(len(labels))
    answers = classes[distance_BC.argmin(1)]
    if len(classes) < 2:
        return answers, np.full(len(labels), np.nan)
    true = distance_BC[items, place]
    distance_BC[items, place] = np.inf
    wrong = distance_BC.argmin(1)
    apart = np.linalg.norm(means_CD[place] - means_CD[wrong], axis=1)
    gap = distance_BC[items, wrong] - true
    margin = np.divide(gap, 2 * apart, out=np.full(len(labels), np.nan), where=known & (apart > 0))
    return answers, margin


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


def _right(reading: Reading) -> Floats:
    return np.where(reading.nearest.scored, reading.nearest.correct.astype(np.float64), np.nan)


def _ridge_right(reading: Reading) -> Floats:
    return np.where(reading.ridge >= 0, (reading.ridge == reading.labels).astype(np.float64), np.nan)


def _differs(reading: Reading) -> Floats:
    known = reading.nearest.scored & (reading.predicted >= 0)
    return np.where(known, (reading.nearest.answers != reading.predicted).astype(np.float64), np.nan)


NCM_ACCURACY = ReadoutProbe(
    "ncm_accuracy", "accuracy of the nearest class mean, each image judged by the fold that lacks it", _right
)
PROBE_ACCURACY = ReadoutProbe(
    "probe_accuracy", "accuracy of a ridge classifier, each image judged by the fold that lacks it", _ridge_right
)
MARGIN = ReadoutProbe(
    "margin",
    "mean signed distance to the boundary between the true and the nearest wrong class mean",
    lambda reading: reading.nearest.margin,
)
NC4 = ReadoutProbe(
    "nc4", "how often the nearest class mean differs from the model's own answer", _differs, needs_head, head=True
)
