"""What can be read off a layer: decisions, made on a sample and never by the fold an item is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from deadweight.probes.layer import Labels
from deadweight.probes.packed_symmetric import Floats

Features = npt.NDArray[np.float32]

RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class NearestMeans:
    """Cross-fitted nearest-class-mean decisions, one an item of the sample.

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
