"""Moments behind the scrambling index: tokens, the mean of the others, CLS, and the token's own embedding.

Of an image's tokens z with mean m, ζ = z − m; of their embeddings E with mean ē, ε = E − ē; c is CLS. The mean of the
other tokens is m − ζ/(N − 1), so every product the two ridge probes need is made of Σ ζζᵀ and Σ ζεᵀ, which add up over
images, and of the scatter of one vector (m, c, ē) an image, which merges the way Chan, Golub and LeVeque's variance
does. Both are kept for either fold of the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deadweight.probes.triangles import Floats, packed

FOLDS = 2
_BANDS, _BAND = 4, 64  # parts a product is done in, so that little below the diagonal is computed; rows at least
_GATHER = 256  # images between updates of what is kept of them
MIXED = -1  # images with different numbers of tokens: the mean of the others is not one function of the rest


@dataclass(frozen=True, eq=False)
class ScramblingMoments:
    """A commutative monoid over images; identity ``ScramblingMoments()``.

    tokens: N, patch tokens of every image; 0 before any, `MIXED` where images differ, and then nothing is kept.
    images: (2,) images in each fold.
    sums:   what adds up: ``within.row`` (2, D(D+1)/2) Σ ζζᵀ, ``cross.row`` (2, D, E) Σ ζεᵀ, ``within.E`` (2,) Σ ‖ε‖².
    means:  of the images: ``row`` (2, P) of (m, c), P = 2D, or D without CLS; ``E`` (2, E) of ē.
    spread: about those means: ``between.row`` (2, P(P+1)/2), ``reach.row`` (2, P, E), ``between.E`` (2,) Σ ‖ē − …‖².
    Memory is 11 D² float64 a row (3 D² without CLS), whatever the number of images.
    """

    tokens: int = 0
    images: Floats = field(default_factory=lambda: np.zeros(FOLDS))
    sums: Mapping[str, Floats] = field(default_factory=dict)
    means: Mapping[str, Floats] = field(default_factory=dict)
    spread: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def rows(self) -> list[int]:
        """Rows something is known of."""
        return sorted(int(name) for name in self.means if name != "E")

    def merge(self, other: ScramblingMoments) -> ScramblingMoments:
        """The moments of both streams; pure."""
        if not self.tokens or not other.tokens:
            return self if self.tokens else other
        if self.tokens != other.tokens:
            return ScramblingMoments(MIXED, self.images + other.images)
        known = sorted(set(self.means) & set(other.means))  # a row one of them could not measure is lost
        sums = {
            name: value + other.sums[name]
            for name, value in self.sums.items()
            if name in other.sums and name.partition(".")[2] in known
        }
        means, spread = between_images(self, other, known)
        return ScramblingMoments(self.tokens, self.images + other.images, sums, means, spread)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything the state holds, as named arrays."""
        held: dict[str, npt.NDArray[np.generic]] = {"tokens": np.array([self.tokens]), "images": self.images}
        for kind in ("sums", "means", "spread"):
            held |= {f"{kind}.{name}": value for name, value in getattr(self, kind).items()}
        return held

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> ScramblingMoments:
        def part(kind: str) -> dict[str, Floats]:
            return {
                name.removeprefix(f"{kind}."): value.astype(np.float64, copy=False)
                for name, value in arrays.items()
                if name.startswith(f"{kind}.")
            }

        if not arrays:
            return cls()
        images = arrays["images"].astype(np.float64)
        return cls(int(arrays["tokens"][0]), images, part("sums"), part("means"), part("spread"))


def between_images(
    one: ScramblingMoments, two: ScramblingMoments, known: Iterable[str]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Means and spread over the images of both."""
    total = one.images + two.images
    share = np.divide(two.images, total, out=np.zeros(FOLDS), where=total > 0)
    weight = one.images * share
    means, spread = {}, {}
    apart_E = two.means["E"] - one.means["E"]
    for name in known:
        apart = two.means[name] - one.means[name]
        means[name] = one.means[name] + share[:, None] * apart
        between = one.spread[f"between.{name}"] + two.spread[f"between.{name}"]
        if name == "E":
            spread["between.E"] = between + weight * np.square(apart).sum(1)
            continue
        reach = one.spread[f"reach.{name}"] + two.spread[f"reach.{name}"]
        for fold in np.flatnonzero(weight):
            between[fold] += packed(np.outer(weight[fold] * apart[fold], apart[fold]))
            reach[fold] += np.outer(weight[fold] * apart[fold], apart_E[fold])
        spread[f"between.{name}"], spread[f"reach.{name}"] = between, reach
    return means, spread


class ScramblingSums:
    """The moments under way, filled in place; :meth:`done` gives the value."""

    def __init__(self) -> None:
        self._tokens = 0
        self._images = np.zeros(FOLDS)
        self._sums: dict[str, Tensor] = {}
        self._between = ScramblingMoments()
        self._waiting: list[tuple[Floats, dict[str, Floats]]] = []
        self._known: set[str] | None = None
        self._same: tuple[int, int] | None = None

    def start(self, embeddings_BNE: Tensor, fold: npt.NDArray[np.bool_]) -> None:
        """A batch begins: its embeddings, and which fold each of its images is in."""
        self._fold = fold
        self._places = [torch.from_numpy(np.flatnonzero(fold == one)).to(embeddings_BNE.device) for one in range(FOLDS)]
        mean_BE = embeddings_BNE.mean(1)
        self._vectors: dict[str, Tensor] = {"E": mean_BE.double()}
        self._shape = embeddings_BNE.shape
        self._targets = self._parts(embeddings_BNE - mean_BE[:, None])
        if self._tokens in (0, embeddings_BNE.shape[1]):
            self._tokens = embeddings_BNE.shape[1]
        else:
            self._tokens = MIXED
            self._sums.clear()
        if self._tokens != MIXED:
            for one, part in self._targets.items():
                self._sum("within.E", (FOLDS,))[one] += part.square().sum(dtype=torch.float64).cpu()

    def row(self, row: int, centred_BND: Tensor, mean_BD: Tensor, cls_BD: Tensor | None) -> None:
        """The tokens of the batch at one row, less their mean; rows of another number of tokens are passed over."""
        if self._tokens == MIXED or centred_BND.shape[:2] != self._shape[:2]:
            return
        width, outputs = centred_BND.shape[-1], self._shape[-1]
        for fold, tokens_TD in self._parts(centred_BND).items():
            square = self._sum(f"within.{row}", (FOLDS, width, width))[fold]
            band = max(_BAND, -(-width // _BANDS))
            for start in range(0, width, band):  # the upper triangle only, a band of rows at a time
                stop = min(start + band, width)
                square[start:stop, start:] += (tokens_TD[:, start:stop].mT @ tokens_TD[:, start:]).to(square)
            cross = self._sum(f"cross.{row}", (FOLDS, width, outputs))[fold]
            cross += (tokens_TD.mT @ self._targets[fold]).to(cross)
        vectors = [mean_BD] if cls_BD is None else [mean_BD, cls_BD]
        self._vectors[str(row)] = torch.cat(vectors, 1).double()

    def repeat(self, row: int, again: int) -> None:
        """Row `again` is row `row`, in every batch."""
        self._same = (row, again)

    def finish(self) -> None:
        """The batch is done."""
        self._images += np.bincount(self._fold, minlength=FOLDS)
        if self._tokens == MIXED:
            self._waiting.clear()
            return
        self._known = set(self._vectors) if self._known is None else self._known & set(self._vectors)
        vectors = {name: value.cpu().numpy() for name, value in self._vectors.items()}
        self._waiting.append((self._fold.astype(np.int64), vectors))
        if sum(len(fold) for fold, _ in self._waiting) >= _GATHER:
            self._flush()

    def done(self) -> ScramblingMoments:
        """The moments of all batches."""
        if self._tokens in (0, MIXED):
            return ScramblingMoments(self._tokens, self._images)
        self._flush()
        sums = {}
        for name in list(self._sums):
            kind, _, row = name.partition(".")
            held = self._sums.pop(name)
            if row in self._between.means:
                sums[name] = np.stack([packed(part.numpy()) for part in held]) if _square(kind, row) else held.numpy()
        means, spread = self._between.means, self._between.spread
        if self._same is not None and str(self._same[0]) in means:
            row, again = (str(place) for place in self._same)
            means = {**means, again: means[row]}
            spread = {**spread, **{f"{kind}.{again}": spread[f"{kind}.{row}"] for kind in ("between", "reach")}}
            sums |= {f"{kind}.{again}": sums[f"{kind}.{row}"] for kind in ("within", "cross")}
        return ScramblingMoments(self._tokens, self._images, sums, means, spread)

    def _parts(self, values_BND: Tensor) -> dict[int, Tensor]:
        """fold -> (T, D) tokens of its images, for the folds that have any."""
        if len(self._places[0]) in (0, len(values_BND)):
            return {int(self._fold[0]): values_BND.flatten(0, 1)}
        return {fold: values_BND.index_select(0, place).flatten(0, 1) for fold, place in enumerate(self._places)}

    def _sum(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._sums:
            self._sums[name] = torch.zeros(shape, dtype=torch.float64)
        return self._sums[name]

    def _flush(self) -> None:
        if not self._waiting:
            return
        fold = np.concatenate([fold for fold, _ in self._waiting])
        assert self._known is not None  # set with what waits
        vectors = {name: np.concatenate([held[name] for _, held in self._waiting]) for name in sorted(self._known)}
        self._waiting.clear()
        self._between = self._between.merge(_of_images(self._tokens, fold, vectors))


def _square(kind: str, row: str) -> bool:
    return kind == "within" and row != "E"


def _of_images(tokens: int, fold: npt.NDArray[np.int64], vectors: Mapping[str, Floats]) -> ScramblingMoments:
    """Means and spread of one vector an image; nothing within images."""
    images = np.bincount(fold, minlength=FOLDS).astype(np.float64)
    means: dict[str, Floats] = {}
    centred: dict[str, list[Floats]] = {}
    for name, values in vectors.items():
        parts = [values[fold == one] for one in range(FOLDS)]
        means[name] = np.stack([part.mean(0) if len(part) else np.zeros(values.shape[1]) for part in parts])
        centred[name] = [part - mean for part, mean in zip(parts, means[name], strict=True)]
    spread = {"between.E": np.array([np.square(part).sum() for part in centred["E"]])}
    sums = {"within.E": np.zeros(FOLDS)}
    for name in vectors:
        if name != "E":
            spread[f"between.{name}"] = np.stack([packed(part.T @ part) for part in centred[name]])
            pairs = zip(centred[name], centred["E"], strict=True)
            spread[f"reach.{name}"] = np.stack([part.T @ target for part, target in pairs])
    return ScramblingMoments(tokens, images, sums, means, spread)
