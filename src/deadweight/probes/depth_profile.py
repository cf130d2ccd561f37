"""`DepthProfile`: the states of a pass, and the table, intervals and notes that follow from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from deadweight.errors import InputError
from deadweight.notebook import table_html
from deadweight.probes.collapse import ClassMoments
from deadweight.probes.hashes import folds, poisson_weights
from deadweight.probes.heads import other_labels
from deadweight.probes.image_means import ImageMeans, percentile_interval
from deadweight.probes.layer import HEAD_INPUT
from deadweight.probes.probe import (
    PROBES,
    ClassProbe,
    Facts,
    Floats,
    HeadProbe,
    ImageProbe,
    MomentProbe,
    R2s,
    ReadoutProbe,
)
from deadweight.probes.readout import FeatureSample, Reading
from deadweight.probes.scrambling import MIXED, ScramblingMoments
from deadweight.probes.scrambling_fit import r2_of
from deadweight.probes.stored import Arrays, read_profile, write_profile

FeatureKind = Literal["auto", "cls", "pooled"]


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """A depth profile: a commutative monoid over images, of one model and one choice of probes.

    facts:    the model; profiles of different models do not merge.
    probes:   names of the probes, in the order of the table's columns.
    images, moments, sample, scrambling: the states (see their classes).
    head:    (C, F) weights of the head's last layer, (0, 0) without one; `remarks`: what was met on the way.
    """

    facts: Facts
    probes: tuple[str, ...]
    images: ImageMeans = dataclasses.field(repr=False)
    moments: ClassMoments = dataclasses.field(repr=False)
    sample: FeatureSample = dataclasses.field(repr=False)
    scrambling: ScramblingMoments = dataclasses.field(repr=False, default_factory=ScramblingMoments)
    head: Floats = dataclasses.field(repr=False, default_factory=lambda: np.zeros((0, 0)))
    remarks: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """Depth + 2: the first block's input, each block's output, the final norm's output."""
        return self.facts.depth + 2

    def merge(self, other: DepthProfile) -> DepthProfile:
        """The profile of both streams of images; pure.

        Raises
        ------
        InputError
            The profiles are of different models or hold different probes.
        """
        if self.facts != other.facts or self.probes != other.probes:
            what = "models" if self.facts != other.facts else "probes"
            raise InputError(
                f"profiles of different {what} do not merge",
                expected="the same model with the same weights, and the same probes",
                cure="profile every shard of the images with one model",
            )
        return DepthProfile(
            self.facts,
            self.probes,
            self.images.merge(other.images),
            self.moments.merge(other.moments),
            self.sample.merge(other.sample),
            self.scrambling.merge(other.scrambling),
            self.head,
            self.remarks | other.remarks,
        )

    def _repr_html_(self) -> str:
        table = self.table().dropna(axis="columns", how="all")
        rows = table.astype(object).itertuples(index=False, name=None)
        return table_html("Depth profile", list(table.columns), rows, notes=list(self.notes))

    def table(self, features: FeatureKind = "auto") -> pd.DataFrame:
        """depth + 2 rows: ``layer`` and a column a probe.

        Parameters
        ----------
        features:
            Of which feature the class columns are: ``"cls"``, ``"pooled"`` (mean of the patches), or ``"auto"``,
            what the head reads. NaN where it does not apply; :attr:`notes` says why.
        """
        kind = self._kind(features)
        columns: dict[str, object] = {"layer": np.arange(self.rows)}
        for name in self.probes:
            columns[name] = self._column(name, kind)
        return pd.DataFrame(columns)

    def intervals(self, features: FeatureKind = "auto", level: float = 0.95) -> pd.DataFrame:
        """One row a layer and column that is a mean over items: ``layer, column, value, low, high, n``.

        Percentiles over 200 Poisson bootstrap replicates whose weights belong to the items, so that merged shards
        give the intervals of the whole.
        """
        kind, parts = self._kind(features), []
        for name in self.probes:
            replicates, n = self._replicates(name, kind)
            if replicates is None:
                continue
            low, high = percentile_interval(replicates[1:], level)
            parts.append(
                pd.DataFrame({"layer": np.arange(self.rows), "column": name, "value": replicates[0],
                              "low": low, "high": high, "n": n})
            )  # fmt: skip
        if not parts:
            return pd.DataFrame(columns=["layer", "column", "value", "low", "high", "n"])
        table = pd.concat(parts, ignore_index=True)
        return table[table["value"].notna()].reset_index(drop=True)

    def correct(self, features: FeatureKind = "auto") -> npt.NDArray[np.bool_]:
        """(rows, n) whether the nearest class mean is right, for the sampled items that can be scored, by hash."""
        readings = self._readings(self._kind(features))
        scored = next((row.nearest.scored for row in readings if row is not None), np.empty(0, dtype=np.bool_))
        nothing = np.zeros(int(scored.sum()), dtype=np.bool_)
        return np.stack([nothing if row is None else row.nearest.correct[scored] for row in readings])

    def readout_loss(self, features: FeatureKind = "auto", level: float = 0.95) -> pd.DataFrame:
        """Nearest-class-mean accuracy after the last block less that at each row: ``layer, loss, low, high, n``.

        The last block, not the final norm, is what the others are held against: a norm can change how well class
        means separate, and that says nothing about the blocks before it (ours).
        Paired over items, intervals as in :meth:`intervals`; where no item changes they are ± 3/n (rule of three).

        Raises
        ------
        InputError
            No labels, or too few items to judge one by others.
        """
        correct = self.correct(features)
        n = correct.shape[1]
        if not n:
            raise InputError(
                "the profile holds no labelled items that can be scored",
                expected="labels for at least two images in either fold",
                cure="yield (inputs, labels) from batches",
            )
        hashes = self.sample.hashes[self._scored()]
        loss = correct[-2].astype(np.float64) - correct
        weights = poisson_weights(hashes)
        drawn = np.maximum(weights.sum(1, keepdims=True), 1)
        low, high = percentile_interval(weights @ loss.T / drawn, level)
        same = ~loss.any(1)
        return pd.DataFrame({
            "layer": np.arange(self.rows),
            "loss": loss.mean(1),
            "low": np.where(same, -3 / n, low),
            "high": np.where(same, 3 / n, high),
            "n": n,
        })  # fmt: skip

    def useful_depth(self, margin: float = 0.01, features: FeatureKind = "auto") -> int:
        """Number of blocks after which the readout is no worse than after the last, to within `margin`.

        The smallest layer whose whole interval of :meth:`readout_loss` lies below the margin; the depth if none does.
        Definition ours.
        Raises :class:`InputError` like it.
        """
        table = self.readout_loss(features)
        enough = table.index[table["high"] < margin]
        return min(int(enough[0]), self.facts.depth) if len(enough) else self.facts.depth

    @property
    def notes(self) -> tuple[str, ...]:
        """Why columns are NaN, and what else a reader of the numbers should know."""
        return (*self._lacking(), *self._doubts(), *sorted(self.remarks))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; everything but the arrays is JSON in its header."""
        states: dict[str, Arrays] = {
            "images": self.images.arrays(), "moments": self.moments.arrays(), "sample": self.sample.arrays(),
            "scrambling": self.scrambling.arrays(), "head": {"weights": self.head},
        }  # fmt: skip
        about = {"facts": dataclasses.asdict(self.facts), "probes": self.probes, "remarks": sorted(self.remarks)}
        write_profile(path, about, states)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DepthProfile:
        """What :meth:`save` wrote; a file that is none raises :class:`InputError`."""
        about, states = read_profile(path)
        return cls(
            Facts(**about["facts"]),
            tuple(about["probes"]),
            ImageMeans.from_arrays(states["images"]),
            ClassMoments.from_arrays(states["moments"]),
            FeatureSample.from_arrays(states["sample"]),
            ScramblingMoments.from_arrays(states["scrambling"]),
            states["head"]["weights"].astype(np.float64),
            frozenset(about["remarks"]),
        )

    def _kind(self, features: str) -> str:
        if features not in ("auto", "cls", "pooled"):
            raise InputError(f"features={features!r}", expected="auto, cls or pooled")
        if features == "auto":
            return self.facts.reads
        return features

    def _column(self, name: str, kind: str) -> Floats:
        probe = PROBES.get(name)
        if isinstance(probe, ClassProbe):
            keys = [f"{kind}.{row}" for row in range(self.rows)]
            return np.array([probe.compute(self.moments, key) if key in self.moments.means else np.nan for key in keys])
        if isinstance(probe, MomentProbe):
            return np.array([probe.compute(found) for found in self._r2])
        if isinstance(probe, HeadProbe):
            return self._of_head(probe, kind)
        replicates, _ = self._replicates(name, kind, intervals=False)
        return np.full(self.rows, np.nan) if replicates is None else replicates[0]

    def _replicates(self, name: str, kind: str, intervals: bool = True) -> tuple[Floats | None, npt.NDArray[np.int64]]:
        """(1 + replicates, rows) of a column that is a mean over items, and the number of items at each row."""
        probe, nothing = PROBES.get(name), np.zeros(self.rows, dtype=np.int64)
        if isinstance(probe, ImageProbe):
            column = probe.column_of(self._means)
            if column is None:
                return None, nothing
            return column, self.images.counts[probe.names[0]][0].astype(np.int64)
        if not isinstance(probe, ReadoutProbe) or not len(self.sample.hashes):
            return None, nothing
        if probe.head and self._other_labels is not None:
            return None, nothing
        values = np.stack([
            np.full(len(self.sample.hashes), np.nan) if row is None else probe.items(row)
            for row in self._readings(kind)
        ])  # fmt: skip
        weights = np.ones((1, values.shape[1]))
        if intervals:
            weights = np.vstack([weights, poisson_weights(self.sample.hashes)])
        defined = ~np.isnan(values)
        counts = weights @ defined.T
        sums = weights @ np.where(defined, values, 0.0).T
        means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return means, defined.sum(1).astype(np.int64)

    @cached_property
    def _means(self) -> dict[str, Floats]:
        return self.images.compute()

    @cached_property
    def _r2(self) -> list[R2s]:
        return [r2_of(self.scrambling, row) for row in range(self.rows)]

    def _of_head(self, probe: HeadProbe, kind: str) -> Floats:
        """The column of a probe of the head: at the last row, for the feature the head reads."""
        column, means = np.full(self.rows, np.nan), self.moments.means.get(HEAD_INPUT)
        read = kind == self.facts.reads and self._other_labels is None
        if read and means is not None and means.shape[1] == self.head.shape[1]:
            column[-1] = probe.compute(self.head[self.moments.classes], means)
        return column

    @property
    def _other_labels(self) -> str | None:
        return other_labels(self.moments.classes, self.facts.outputs)

    @cached_property
    def _read(self) -> dict[str, list[Reading | None]]:
        return {}

    def _readings(self, kind: str) -> list[Reading | None]:
        """What can be read off every row, kept a kind of feature."""
        if kind not in self._read:
            self._read[kind] = [self.sample.reading(f"{kind}.{row}") for row in range(self.rows)]
        return self._read[kind]

    def _scored(self) -> npt.NDArray[np.bool_]:
        fold = folds(self.sample.hashes)
        mixed = bool(fold.any() and not fold.all())
        return np.full(len(fold), mixed)

    def _lacking(self) -> Iterator[str]:
        """Columns, or parts of them, that are NaN."""
        if not self.images.images:
            yield "no images were seen: every column is NaN"
        for name in self.probes:
            reason = PROBES.get(name).lacks(self.facts)
            if reason is not None:
                yield f"{name}: {reason}"
        of_blocks = [name for name in self.probes if name == "influence" or name in self._mapped]
        if of_blocks:
            yield f"{', '.join(of_blocks)}: a block's; there is none at the first and the last row"
        if "pe_dominance" in self.probes and self.facts.position_kind == "learned":
            yield "pe_dominance: what enters the first block; there is none at later rows"
        yield from self._lacking_scrambling()
        if not self._class_columns or self.facts.kind != "vision":
            return
        columns = ", ".join(self._class_columns)
        if not self.sample.seen:
            yield f"{columns}: the batches carried no labels"
        elif len(self.moments.classes) == 1:
            yield f"{columns}: all labels are of one class"
        elif not self._scored().any():
            yield f"{columns}: all images fall into one fold, so none can be judged by others"
        of_head = [name for name in self.probes if isinstance(PROBES.get(name), HeadProbe)]
        if of_head and self.sample.seen:
            yield f"{', '.join(of_head)}: of the feature the head reads ({self.facts.reads}), at the last row only"
        if self._other_labels is not None:
            compared = [*of_head, *(name for name in self.probes if getattr(PROBES.get(name), "head", False))]
            yield f"{', '.join(compared)}: the label spaces differ: {self._other_labels}"

    def _lacking_scrambling(self) -> Iterator[str]:
        of_moments = [name for name in self.probes if isinstance(PROBES.get(name), MomentProbe)]
        if not of_moments or self.facts.kind != "vision" or not self.images.images:
            return
        columns = ", ".join(of_moments)
        if self.scrambling.tokens == MIXED:
            yield f"{columns}: images with different numbers of patches"
        elif self.scrambling.tokens == 1:
            yield f"{columns}: one patch an image has no others"
        elif self.scrambling.tokens and not self.scrambling.images.all():
            yield f"{columns}: all images fall into one fold, so none can be held out"

    def _doubts(self) -> Iterator[str]:
        """What the class columns rest on."""
        seen, kept = self.sample.seen, len(self.sample.hashes)
        if not seen:
            return
        if seen < self.images.images:
            yield f"class columns: {seen} of {self.images.images} images carried labels"
        width = max(mean.shape[1] for mean in self.moments.means.values())
        if "nc1" in self.probes and seen - len(self.moments.classes) < width:
            yield (
                f"nc1: {seen} images in {len(self.moments.classes)} classes for {width} dimensions: the covariance "
                "within classes has not full rank and is estimated too low between the images seen"
            )
        if "nc1" in self.probes and self.moments.pooled and np.ptp(self.moments.counts) > 0:
            yield "nc1: too many classes to keep a covariance each; classes weigh as many images as they have"
        if self.facts.reads == "cls":
            yield "class columns at layer 0: the CLS token is the same for every image there, so it tells no class"
        if kept < seen:
            yield f"readout columns: a sample of {kept} of {seen} images, those with the smallest hashes"

    @property
    def _class_columns(self) -> list[str]:
        return [name for name in self.probes if not isinstance(PROBES.get(name), (ImageProbe, MomentProbe))]

    @property
    def _mapped(self) -> list[str]:
        return [name for name in self.probes if getattr(PROBES.get(name), "attention", False)]
