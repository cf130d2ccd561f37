"""The moments of the scrambling index under way: filled in place, batch by batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deadweight.probes.packed_symmetric import Floats, UpperTriangles
from deadweight.probes.products import rows_product
from deadweight.probes.scratch import Scratch
from deadweight.probes.states.scrambling import FOLDS, MIXED, ScramblingMoments

_GATHER = 256  # images between updates of what is kept of them


class ScramblingSums:
    """One pass' moments; :meth:`done` gives the value."""

    def __init__(self) -> None:
        self._tokens = 0
        self._images = np.zeros(FOLDS)
        self._within: dict[str, UpperTriangles] = {}
        self._cross: dict[str, Tensor] = {}
        self._output = np.zeros(FOLDS)
        self._between = ImageSpread()
        self._known: set[str] | None = None
        self._scratch = Scratch()

    def start(self, embeddings_BNE: Tensor, fold: npt.NDArray[np.bool_]) -> None:
        """A batch begins: its embeddings, and which fold each of its images is in."""
        self._fold = fold
        self._places = [torch.from_numpy(np.flatnonzero(fold == one)).to(embeddings_BNE.device) for one in range(FOLDS)]
        mean_BE = embeddings_BNE.mean(1)
        self._vectors: dict[str, Tensor] = {"E": mean_BE.double()}
        self._shape = embeddings_BNE.shape
        if self._tokens in (0, embeddings_BNE.shape[1]):
            self._tokens = embeddings_BNE.shape[1]
        else:
            self._tokens = MIXED
            self._within.clear()
            self._cross.clear()
        if self._tokens != MIXED:
            centred_BNE = embeddings_BNE - mean_BE[:, None]
            self._targets = {fold: self._columns("targets", centred_BNE, fold) for fold in self._folds()}
            for one, part in self._targets.items():
                self._output[one] += float(part.square().sum(dtype=torch.float64))

    def row(self, row: int, centred_BND: Tensor, mean_BD: Tensor, cls_BD: Tensor | None) -> None:
        """The tokens of the batch at one row, less their mean; rows of another number of tokens are passed over."""
        if self._tokens == MIXED or centred_BND.shape[:2] != self._shape[:2]:
            return
        name, width, outputs = str(row), centred_BND.shape[-1], self._shape[-1]
        if name not in self._within:
            self._within[name] = UpperTriangles(FOLDS, width)
            self._cross[name] = torch.zeros(FOLDS, width, outputs, dtype=torch.float64, device="cpu")
        for fold in self._folds():
            tokens_DT = self._columns("tokens", centred_BND, fold)
            self._within[name].add(fold, tokens_DT)
            self._cross[name][fold] += rows_product(tokens_DT, self._targets[fold]).to(self._cross[name])
        vectors = [mean_BD] if cls_BD is None else [mean_BD, cls_BD]
        self._vectors[name] = torch.cat(vectors, 1).double()

    def finish(self) -> None:
        """The batch is done."""
        self._images += np.bincount(self._fold, minlength=FOLDS)
        if self._tokens == MIXED:
            self._between = ImageSpread()
            return
        self._known = set(self._vectors) if self._known is None else self._known & set(self._vectors)
        self._between.add(self._fold, {name: self._vectors[name].cpu() for name in self._known})

    def done(self) -> ScramblingMoments:
        """The moments of all batches."""
        if self._tokens in (0, MIXED):
            return ScramblingMoments(self._tokens, self._images)
        means, spread = self._between.done()
        sums = {"within.E": self._output}
        for name in sorted(set(means) - {"E"}):
            sums[f"within.{name}"] = self._within.pop(name).packed()
            sums[f"cross.{name}"] = self._cross.pop(name).numpy()
        return ScramblingMoments(self._tokens, self._images, sums, means, spread)

    def _folds(self) -> list[int]:
        """The folds that have images in this batch."""
        return [fold for fold, place in enumerate(self._places) if len(place)]

    def _columns(self, name: str, values_BND: Tensor, fold: int) -> Tensor:
        """(D, T) the tokens of a fold's images, a token a column; until the next ones of that name and fold."""
        place, (_, tokens, width) = self._places[fold], values_BND.shape
        kind = values_BND.dtype, values_BND.device
        few = self._scratch.empty("few", (len(place), tokens, width), *kind)
        columns_DT = self._scratch.empty(f"{name}.{fold}", (width, len(place) * tokens), *kind)
        torch.index_select(values_BND, 0, place, out=few)
        return columns_DT.copy_(few.flatten(0, 1).mT)


class ImageSpread:
    """Means and scatter of one vector an image: (m, c) at each row, and ē, the embeddings' mean.

    Sums are about the mean of the first images of a fold: close enough to the mean of all that float64 loses next to
    nothing when they are moved there at the end.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[npt.NDArray[np.bool_], dict[str, Tensor]]] = []
        self._images = [0] * FOLDS
        self._centre: list[dict[str, Tensor]] = [{} for _ in range(FOLDS)]
        self._sum: dict[str, Tensor] = {}
        self._between: dict[str, UpperTriangles] = {}
        self._reach: dict[str, Tensor] = {}
        self._output = np.zeros(FOLDS)

    def add(self, fold: npt.NDArray[np.bool_], vectors: dict[str, Tensor]) -> None:
        """A batch's float64 vectors, those of rows that all batches had, and which fold each of its images is in."""
        self._waiting.append((fold, vectors))
        if sum(len(fold) for fold, _ in self._waiting) >= _GATHER:
            self._flush()

    def done(self) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """`means` and `spread` of :class:`ScramblingMoments`."""
        self._flush()
        means: dict[str, Floats] = {}
        spread: dict[str, Floats] = {}
        for fold, images in enumerate(self._images):
            self._output[fold] -= float(self._sum["E"][fold].square().sum()) / max(images, 1)
        for name in list(self._sum):
            means[name] = np.stack([self._mean(name, fold) for fold in range(FOLDS)])
            if name != "E":
                spread[f"between.{name}"], spread[f"reach.{name}"] = self._about_mean(name)
        return means, spread | {"between.E": self._output}

    def _flush(self) -> None:
        if not self._waiting:
            return
        names = self._waiting[-1][1].keys()
        for kept in (self._sum, self._between, self._reach):
            for name in kept.keys() - names:
                del kept[name]
        side = np.concatenate([fold for fold, _ in self._waiting])
        vectors = {name: torch.cat([held[name] for _, held in self._waiting]) for name in names}
        self._waiting.clear()
        for fold in range(FOLDS):
            self._add(fold, {name: values[torch.from_numpy(side == fold)] for name, values in vectors.items()})

    def _add(self, fold: int, vectors: dict[str, Tensor]) -> None:
        if not self._images[fold]:
            self._centre[fold] = {
                name: values.mean(0) if len(values) else values.sum(0) for name, values in vectors.items()
            }
        self._images[fold] += len(vectors["E"])
        centred = {name: values - self._centre[fold][name] for name, values in vectors.items()}
        outputs_BE = centred["E"]
        self._output[fold] += float(outputs_BE.square().sum())
        for name, values_BP in centred.items():
            width = values_BP.shape[1]
            if name not in self._sum:
                self._sum[name] = torch.zeros(FOLDS, width, dtype=torch.float64, device="cpu")
            self._sum[name][fold] += values_BP.sum(0)
            if name == "E":
                continue
            if name not in self._between:
                self._between[name] = UpperTriangles(FOLDS, width)
                self._reach[name] = torch.zeros(FOLDS, width, outputs_BE.shape[1], dtype=torch.float64, device="cpu")
            self._between[name].add(fold, values_BP.mT)
            self._reach[name][fold].addmm_(values_BP.mT, outputs_BE)

    def _mean(self, name: str, fold: int) -> Floats:
        mean: Floats = (self._centre[fold][name] + self._sum[name][fold] / max(self._images[fold], 1)).numpy()
        return mean

    def _about_mean(self, name: str) -> tuple[Floats, Floats]:
        """Σ (v − v̄)(v − v̄)ᵀ packed, and Σ (v − v̄)(ē − …)ᵀ, of either fold; what they were made of is let go."""
        triangles, reach = self._between.pop(name), self._reach.pop(name)
        for fold, images in enumerate(self._images):
            total_P, output_E = self._sum[name][fold], self._sum["E"][fold]
            triangles.add(fold, total_P[:, None], -1 / max(images, 1))
            reach[fold].addr_(total_P, output_E, alpha=-1 / max(images, 1))
        return triangles.packed(), reach.numpy()
