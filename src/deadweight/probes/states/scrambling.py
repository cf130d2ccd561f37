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

from deadweight.probes.packed_symmetric import Floats, packed

FOLDS = 2
MIXED = -1  # images with different numbers of tokens: the mean of the others is not one function of the rest


@dataclass(frozen=True, eq=False)
class ScramblingMoments:
    """A commutative monoid over images; identity ``ScramblingMoments()``.

    tokens: N, patch tokens of every image; 0 before any, `MIXED` where images differ, and then nothing is kept.
    images: (2,) images in each fold.
    sums:   what adds up: ``within.row`` (2, D(D+1)/2) Σ ζζᵀ, ``cross.row`` (2, D, E) Σ ζεᵀ, ``within.E`` (2,) Σ ‖ε‖².
    means:  of the images: ``row`` (2, P) of (m, c), P = 2D, or D without CLS; ``E`` (2, E) of ē.
    spread: about those means: ``between.row`` (2, P(P+1)/2), ``reach.row`` (2, P, E), ``between.E`` (2,) Σ ‖ē − …‖².
    Memory is 11 D² float64 a row (6 D² without CLS), whatever the number of images.
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
        if self.tokens != other.tokens or self.tokens == MIXED:
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
