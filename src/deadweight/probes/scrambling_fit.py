"""From moments to R²: two ridge probes a row, each fitted on one fold of the images and tried on the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from deadweight.probes.kinds import MomentProbe, R2s
from deadweight.probes.packed_symmetric import Floats, unpacked
from deadweight.probes.states.scrambling import FOLDS, ScramblingMoments

RIDGE = 1e-3
_CONSTANT = 1e-6  # a spread this small beside the mean is the rounding of a float32 constant
_AT_ONCE = 4  # rows; one of ViT-L's takes 0.26 GB, without what LAPACK copies
_RANK = 1e-13  # what is left of a unit diagonal when the rank is reached


@dataclass(frozen=True, eq=False)
class Side:
    """The moments of one fold at one row; D inputs a token, P = 2D (m, c) or D an image, E outputs.

    tokens, images:   N an image, and how many images.
    within, cross:    (D, D), (D, E) of tokens about their image's mean.
    mean:             (P,) of images; between, reach: (P, P), (P, E) about it.
    output_mean:      (E,) of the embeddings; output_within, output_between: their squares, summed over E.
    """

    tokens: int
    images: float
    within: Floats
    cross: Floats
    mean: Floats
    between: Floats
    reach: Floats
    output_mean: Floats
    output_within: float
    output_between: float

    @property
    def total(self) -> float:
        """Tokens in the fold."""
        return self.images * self.tokens

    @cached_property
    def factor(self) -> Floats | None:
        """(P, R) whose product with itself is `between`; None where that has no low rank."""
        return _factor(self.between, self.images, self.mean)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A linear prediction of E about a centre: (D, E) of ζ, and of (m, c), or of m alone where CLS has no part."""

    by_token: Floats
    by_image: Floats
    mean: Floats
    output_mean: Floats


def r2_of(moments: ScramblingMoments, row: int) -> R2s:
    """Held-out R² of the token alone and of token, others' mean and CLS together.

    Cross-fitted: 1 − Σ squared error / Σ squared deviation from the training fold's mean, sums over tokens, outputs and
    both folds. Not clipped. NaN where either fold is empty or an image has fewer than two tokens.
    """
    if str(row) not in moments.means or moments.tokens < 2 or not moments.images.all():
        return R2s(float("nan"), float("nan"))
    sides = [_side(moments, row, fold) for fold in range(FOLDS)]
    errors, total = np.zeros(2), 0.0
    for train, test in (sides, sides[::-1]):
        errors += [squared_error(fit(train), test) for fit in (fit_self, fit_all)]
        apart = test.output_mean - train.output_mean
        total += test.output_within + test.tokens * (test.output_between + test.images * float(apart @ apart))
    if total <= 0:
        return R2s(float("nan"), float("nan"))
    return R2s(*(float(value) for value in 1 - errors / total))


def r2_of_rows(moments: ScramblingMoments, rows: int) -> list[R2s]:
    """:func:`r2_of` of each row, several at a time on threads of their own: memory allows for no more than `_AT_ONCE`.

    numpy's own threads are best kept to one (:func:`deadweight.probes.blas.one_blas_thread`).
    """
    with ThreadPoolExecutor(min(torch.get_num_threads(), _AT_ONCE)) as pool:
        return list(pool.map(lambda row: r2_of(moments, row), range(rows)))


def squared_error(fitted: Predictor, test: Side) -> float:
    """Σ ‖E − Ê‖² over the tokens of a fold, from its moments."""
    by_image = fitted.by_image
    inside = test.output_within + _change(fitted.by_token, test.within, test.cross)
    apart, output_apart = test.mean[: len(by_image)] - fitted.mean, test.output_mean - fitted.output_mean
    offset = output_apart - apart @ by_image
    outside = test.output_between - 2 * float(np.vdot(by_image, test.reach[: len(by_image)]))
    if test.factor is None:
        between = test.between[: len(by_image), : len(by_image)]
        outside += float(np.vdot(by_image, between @ by_image))
    else:
        outside += float(np.square(test.factor[: len(by_image)].T @ by_image).sum())
    return inside + test.tokens * (outside + test.images * float(offset @ offset))


def _change(weights: Floats, inputs: Floats, cross: Floats) -> float:
    """tr(Wᵀ S W) − 2 tr(Wᵀ C)"""
    return float(np.vdot(weights, inputs @ weights - 2 * cross))


def fit_self(side: Side) -> Predictor:
    """Ridge from a token to its own embedding; inputs standardised, λ = 1e-3 · tr(G)/D, intercept unpenalised."""
    width, n = len(side.within), side.tokens
    square = side.within + n * side.between[:width, :width]
    inverse = _inverse_spread(square.diagonal() / side.total, side.mean[:width])
    gram = square * (inverse[:, None] * inverse / side.total)
    cross = (side.cross + n * side.reach[:width]) * (inverse[:, None] / side.total)
    weights = inverse[:, None] * _solve(gram, cross, RIDGE * gram.trace() / width)
    return Predictor(weights, weights, side.mean[:width], side.output_mean)


def fit_all(side: Side) -> Predictor:
    """Ridge from a token, the mean of the other patch tokens and CLS (where there is one); penalised alike.

    The inputs are linear in ζ and in (m, c). Where the images are fewer than D, their part has low rank and the ridge
    system of up to 3D unknowns comes down to one of D and one of as many as there are images (Woodbury).
    """
    width, n = len(side.within), side.tokens
    others = -1 / (n - 1)
    inside, outside = side.within.diagonal(), n * side.between.diagonal()
    spread = np.concatenate([inside, others**2 * inside, np.zeros(len(outside) - width)])
    spread += np.concatenate([outside[:width], outside])
    mean = np.concatenate([side.mean[:width], side.mean])
    inverse = _inverse_spread(spread / side.total, mean)
    penalty = RIDGE * float((spread * inverse**2).sum()) / side.total / len(inverse)
    token = np.stack([inverse[:width], others * inverse[width : 2 * width]])  # what ζ adds to the scaled inputs
    cross = np.concatenate([side.reach[:width], side.reach])
    cross *= n * inverse[:, None]
    for i in range(2):
        cross[i * width : (i + 1) * width] += token[i][:, None] * side.cross
    cross /= side.total
    factor_PR = side.factor
    if penalty <= 0:
        solved = np.zeros_like(cross)
    elif factor_PR is None:
        solved = _solve(_gram(side, inverse, token), cross, penalty)
    else:
        images = inverse[:, None] * np.concatenate([factor_PR[:width], factor_PR]) * np.sqrt(n / side.total)
        solved = _solve_split(side.within / side.total, token, images, cross, penalty)
    weights = inverse[:, None] * solved
    first, second = weights[:width], weights[width : 2 * width]
    image = np.concatenate([first + second, weights[2 * width :]])
    return Predictor(first + others * second, image, side.mean, side.output_mean)


def _gram(side: Side, inverse: Floats, token: Floats) -> Floats:
    """Gram matrix of the standardised inputs: token, others' mean, CLS."""
    width, n = len(side.within), side.tokens
    places = np.concatenate([np.arange(width), np.arange(len(side.between))])
    gram = n * side.between[np.ix_(places, places)] * (inverse[:, None] * inverse)
    for i in range(2):
        for j in range(2):
            block = gram[i * width : (i + 1) * width, j * width : (j + 1) * width]
            block += side.within * (token[i][:, None] * token[j])
    found: Floats = gram / side.total
    return found


def _factor(between: Floats, images: float, mean: Floats) -> Floats | None:
    """(P, R) whose product with itself is the images' scatter, by pivoted Cholesky; None where it has no low rank.

    Of the matrix scaled to a unit diagonal, until no more than rounding is left. A row of it is read only when it is
    next, so R rows cost R²P: LAPACK's own works through the whole matrix.
    """
    width = len(between)
    if images - 1 >= width // 2:
        return None
    scale = np.sqrt(np.maximum(between.diagonal(), 0))
    scale[scale <= _CONSTANT * np.sqrt(images) * np.abs(mean)] = 0  # rounding of a constant, of either sign
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    lower_RP, left = np.zeros((int(images), width)), (scale > 0).astype(np.float64)
    rank = 0
    while rank < len(lower_RP) and left.max() > _RANK:
        pivot = left.argmax()
        row = between[pivot] * (inverse * inverse[pivot]) - lower_RP[:rank, pivot] @ lower_RP[:rank]
        lower_RP[rank] = row / np.sqrt(left[pivot])
        left -= np.square(lower_RP[rank])
        left[pivot] = 0
        rank += 1
    scaled: Floats = scale[:, None] * lower_RP[:rank].T
    return scaled


def _solve_split(within: Floats, token: Floats, images_KR: Floats, cross_KE: Floats, penalty: float) -> Floats:
    """(T within Tᵀ + F Fᵀ + λ)⁻¹ cross, T the two diagonals of `token` one above the other, F = `images_KR`."""
    width = len(within)
    length = np.sqrt(np.square(token).sum(0))
    basis = np.divide(token, length, out=np.zeros_like(token), where=length > 0)
    small = within * (length[:, None] * length)
    small[np.diag_indices(width)] += penalty
    solved = np.concatenate([images_KR, cross_KE], 1)
    parts = [solved[:width], solved[width : 2 * width]]
    along = basis[0][:, None] * parts[0] + basis[1][:, None] * parts[1]
    turned = np.linalg.solve(small, along)
    turned -= along / penalty
    solved /= penalty
    for part, axis in zip(parts, basis, strict=True):
        part += axis[:, None] * turned
    rank = images_KR.shape[1]
    of_images, of_cross = solved[:, :rank], solved[:, rank:]
    inner = images_KR.T @ of_images
    inner[np.diag_indices(rank)] += 1
    found: Floats = of_cross - of_images @ np.linalg.solve(inner, images_KR.T @ of_cross)
    return found


def _solve(gram: Floats, cross: Floats, penalty: float) -> Floats:
    if penalty <= 0:
        return np.zeros_like(cross)
    gram[np.diag_indices(len(gram))] += penalty
    return np.linalg.solve(gram, cross).astype(np.float64, copy=False)


def _inverse_spread(variance: Floats, mean: Floats) -> Floats:
    """1/s.d. of each input, 0 for those that are constant to float32's rounding."""
    spread = np.sqrt(np.maximum(variance, 0))
    return np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > _CONSTANT * np.abs(mean))


def _side(moments: ScramblingMoments, row: int, fold: int) -> Side:
    name = str(row)
    cross, mean = moments.sums[f"cross.{name}"][fold], moments.means[name][fold]
    return Side(
        moments.tokens,
        float(moments.images[fold]),
        unpacked(moments.sums[f"within.{name}"][fold], len(cross)),
        cross,
        mean,
        unpacked(moments.spread[f"between.{name}"][fold], len(mean)),
        moments.spread[f"reach.{name}"][fold],
        moments.means["E"][fold],
        float(moments.sums["within.E"][fold]),
        float(moments.spread["between.E"][fold]),
    )


R2_SELF = MomentProbe("r2_self", "held-out R² of a ridge from a patch token to its own embedding", lambda it: it.own)
R2_ALL = MomentProbe(
    "r2_all", "the same from the token, the mean of the other patch tokens and CLS", lambda it: it.everything
)
ISI = MomentProbe(
    "isi", "scrambling: how much of a token's embedding only the other tokens hold, r2_all − r2_self",
    lambda it: it.everything - it.own,
)  # fmt: skip
