"""`DepthProfile`: the states of a pass, and the table, intervals and notes that follow from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from deadweight.errors import InputError
from deadweight.notebook import table_html
from deadweight.probes.blas import one_blas_thread
from deadweight.probes.hashes import folds
from deadweight.probes.kinds import ClassProbe, Facts, HeadProbe, ImageProbe, MomentProbe, R2s, ReadoutProbe
from deadweight.probes.layer import HEAD_INPUT
from deadweight.probes.notes import doubts, lacking, other_labels
from deadweight.probes.packed_symmetric import Floats
from deadweight.probes.phases import Phases, phases_of, regime, tradeoff_onset
from deadweight.probes.probe import PROBES
from deadweight.probes.scrambling_fit import r2_of_rows
from deadweight.probes.states.class_moments import ClassMoments
from deadweight.probes.states.feature_sample import FeatureSample, Reading
from deadweight.probes.states.image_means import ImageMeans, student_interval
from deadweight.probes.states.positions import PositionNorms
from deadweight.probes.states.scrambling import ScramblingMoments
from deadweight.probes.stored import Arrays, read_profile, write_profile
from deadweight.statistics import LEVEL, accuracy_loss, mean, rate, useful_depth

FeatureKind = Literal["auto", "cls", "pooled"]


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """A depth profile: a commutative monoid over images, of one model and one choice of probes.

    facts:    the model; profiles of different models do not merge.
    probes:   names of the probes, in the order of the table's columns.
    images, moments, sample, scrambling: the states (see their classes).
    head:    (C, F) weights of the head's last layer, (0, 0) without one; `remarks`: what was met on the way.
    positions: lengths of the positional encoding and of the embeddings, position by position.

    >>> import deadweight as dw, torch
    >>> images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> profile = dw.profile(dw.load("embedded:digits-vit"), [(images,)], probes=["influence", "raw_similarity"])
    >>> profile.table().shape, profile.merge(profile).images.images  # 6 blocks, their input, the final norm
    ((8, 3), 16)
    """

    facts: Facts
    probes: tuple[str, ...]
    images: ImageMeans = dataclasses.field(repr=False)
    moments: ClassMoments = dataclasses.field(repr=False)
    sample: FeatureSample = dataclasses.field(repr=False)
    scrambling: ScramblingMoments = dataclasses.field(repr=False, default_factory=ScramblingMoments)
    head: Floats = dataclasses.field(repr=False, default_factory=lambda: np.zeros((0, 0)))
    remarks: frozenset[str] = frozenset()
    positions: PositionNorms = dataclasses.field(repr=False, default_factory=PositionNorms)

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
            self.positions.merge(other.positions),
        )

    def _repr_html_(self) -> str:
        table = self.table().dropna(axis="columns", how="all")
        rows = table.astype(object).itertuples(index=False, name=None)
        return table_html("Depth profile", list(table.columns), rows, notes=list(self.notes))

    @one_blas_thread()
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

    @one_blas_thread()
    def intervals(self, features: FeatureKind = "auto", level: float = 0.95) -> pd.DataFrame:
        """One row for each layer and column that is a mean over items: ``layer, column, value, low, high, n``.

        Means over images: Student's t and the standard error of 200 Poisson bootstrap replicates, whose weights belong
        to the items, so that merged shards give the intervals of the whole. Readouts: exact for shares, as
        :func:`deadweight.statistics.mean` for margins. low and high are NaN where too few items would not give what
        `level` promises: fewer than 64 images.
        """
        kind, parts = self._kind(features), []
        for name in self.probes:
            found = self._interval(name, kind, level)
            if found is None:
                continue
            value, low, high, n = found
            parts.append(
                pd.DataFrame({"layer": np.arange(self.rows), "column": name, "value": value,
                              "low": low, "high": high, "n": n})
            )  # fmt: skip
        if not parts:
            return pd.DataFrame(columns=["layer", "column", "value", "low", "high", "n"])
        table = pd.concat(parts, ignore_index=True)
        return table[table["value"].notna()].reset_index(drop=True)

    @one_blas_thread()
    def correct(self, features: FeatureKind = "auto") -> npt.NDArray[np.bool_]:
        """(rows, n) whether the nearest class mean is right, for the sampled items that can be scored, by hash."""
        readings = self._readings(self._kind(features))
        scored = next((row.nearest.scored for row in readings if row is not None), np.empty(0, dtype=np.bool_))
        nothing = np.zeros(int(scored.sum()), dtype=np.bool_)
        return np.stack([nothing if row is None else row.nearest.correct[scored] for row in readings])

    def readout_loss(self, features: FeatureKind = "auto", level: float = LEVEL) -> pd.DataFrame:
        """Nearest-class-mean accuracy after the last block less that at each row: ``layer, loss, low, high, n``.

        The last block, not the final norm, is what the others are held against: a norm can change how well class
        means separate, and that says nothing about the blocks before it (ours).
        Paired over items; the ends are those of :func:`deadweight.statistics.accuracy_loss`, whatever their order.

        Raises
        ------
        InputError
            No labels, or too few items to judge one by others.
        """
        correct = self._scored_correct(features)
        losses = [accuracy_loss(correct[-2], row, level=level, unit="images") for row in correct]
        return pd.DataFrame({
            "layer": np.arange(self.rows),
            "loss": [loss.value for loss in losses],
            "low": [loss.low for loss in losses],
            "high": [loss.high for loss in losses],
            "n": correct.shape[1],
        })  # fmt: skip

    def useful_depth(self, margin: float = 0.01, features: FeatureKind = "auto") -> int:
        """Number of blocks after which, and after each more, the readout is within `margin` of that after the last.

        Tested from the last block down, each at 5 %, until one fails (:func:`deadweight.statistics.useful_depth`): the
        claim is false in at most 5 % of models, and does not depend on the order of the images. Definition ours.
        Raises :class:`InputError` as :meth:`readout_loss`.
        """
        return useful_depth(self._scored_correct(features)[:-1], margin).layer

    def _scored_correct(self, features: FeatureKind) -> npt.NDArray[np.bool_]:
        correct = self.correct(features)
        if not correct.shape[1]:
            raise InputError(
                "the profile holds no labelled items that can be scored",
                expected="labels for at least two images in either fold",
                cure="yield (inputs, labels) from batches",
            )
        return correct

    def phases(self, curves: Sequence[str] = ("centered_similarity", "raw_similarity")) -> Phases:
        """Cliff, plateau and climb of the similarity curves, layers 0 to the last block, boundaries with intervals.

        Found as :func:`deadweight.probes.phases.phases_of` says; a phase a curve lacks is in ``missing``.
        Raises :class:`InputError` where a curve was not profiled.
        """
        found: list[Phases] = []
        for curve in curves:
            replicates = self._replicates(curve) if curve in self.probes else None
            if replicates is None or np.isnan(replicates[0, :-1]).any():
                raise InputError(
                    f"the profile holds no curve {curve!r}",
                    expected="a mean over images at every layer",
                    cure="profile with probes that include it, on at least one image",
                )
            drawn = replicates[1:, :-1]
            found.append(phases_of(curve, replicates[0, :-1], drawn[~np.isnan(drawn).any(1)]))
        return Phases(sum((one.phases for one in found), ()), sum((one.missing for one in found), ()))

    def position_dominance(self) -> Floats:
        """(N,) ‖PE‖₂ / mean ‖z₀‖₂ at each patch position, row by row of the image; of language models at each token.

        The table's ``pe_dominance`` is the same over all positions. Empty where the model learns no such encoding
        (the notes say why), NaN where images have different numbers of patches: their positions are not the same.
        """
        found, images = self.positions.dominance(), self.positions.images
        if self.facts.kind == "vision" and len(images) and np.ptp(images) > 0:
            return np.full_like(found, np.nan)
        return found

    def tradeoff_onset(self, features: FeatureKind = "auto") -> int | None:
        """First layer from which tokens only lose their own content while the readout gains nothing; None without.

        :func:`deadweight.probes.phases.tradeoff_onset` states the rule. None too without labels or moments.
        """
        r2, correct = np.array([found.own for found in self._r2]), self.correct(features)
        if np.isnan(r2[:-1]).any() or not correct.shape[1]:
            return None
        return tradeoff_onset(r2[:-1], correct[:-1])

    def regime(self) -> str:
        """Collapse, consensus or diffusion, by the scrambling index after the last block."""
        last = self._r2[self.facts.depth]
        return regime(last.everything - last.own)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why columns are NaN, and what else a reader of the numbers should know."""
        return (*lacking(self), *doubts(self), *sorted(self.remarks))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; everything but the arrays is JSON in its header."""
        states: dict[str, Arrays] = {
            "images": self.images.arrays(), "moments": self.moments.arrays(), "sample": self.sample.arrays(),
            "scrambling": self.scrambling.arrays(), "head": {"weights": self.head},
            "positions": self.positions.arrays(),
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
            PositionNorms(**{name: value.astype(np.float64) for name, value in states["positions"].items()}),
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
        replicates, items = self._replicates(name), self._items(name, kind)
        column = np.full(self.rows, np.nan)
        if replicates is not None:
            column[:] = replicates[0]
        elif items is not None:
            counted = ~np.isnan(items)
            np.divide(np.where(counted, items, 0.0).sum(1), counted.sum(1), out=column, where=counted.any(1))
        return column

    def _interval(
        self, name: str, kind: str, level: float
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]] | None:
        """(rows,) value, low, high and number of items of a column that is a mean over items; None for any other."""
        probe, replicates = PROBES.get(name), self._replicates(name)
        if isinstance(probe, ImageProbe) and replicates is not None:
            n = self.images.counts[probe.names[0]][0].astype(np.int64)
            return replicates[0], *student_interval(replicates, n, level), n
        items = self._items(name, kind)
        if items is None:
            return None
        ends = [_ends(row[~np.isnan(row)], level) for row in items]
        value, low, high = (np.array([row[at] for row in ends]) for at in range(3))
        return value, low, high, (~np.isnan(items)).sum(1)

    def _replicates(self, name: str) -> Floats | None:
        """(1 + replicates, rows) of a column that is a mean over images, the estimate first."""
        probe = PROBES.get(name)
        return probe.column_of(self._means) if isinstance(probe, ImageProbe) else None

    def _items(self, name: str, kind: str) -> Floats | None:
        """(rows, items) of a column that is read off the sampled items, NaN where one does not count."""
        probe = PROBES.get(name)
        if not isinstance(probe, ReadoutProbe) or not len(self.sample.hashes):
            return None
        if probe.head and other_labels(self) is not None:
            return None
        unread = np.full(len(self.sample.hashes), np.nan)
        return np.stack([unread if row is None else probe.items(row) for row in self._readings(kind)])

    @cached_property
    def _means(self) -> dict[str, Floats]:
        return self.images.compute()

    @cached_property
    @one_blas_thread()
    def _r2(self) -> list[R2s]:
        return r2_of_rows(self.scrambling, self.rows)

    def _of_head(self, probe: HeadProbe, kind: str) -> Floats:
        """The column of a probe of the head: at the last row, for the feature the head reads."""
        column, means = np.full(self.rows, np.nan), self.moments.means.get(HEAD_INPUT)
        read = kind == self.facts.reads and other_labels(self) is None
        if read and means is not None and means.shape[1] == self.head.shape[1]:
            column[-1] = probe.compute(self.head[self.moments.classes], means)
        return column

    @cached_property
    def _read(self) -> dict[str, list[Reading | None]]:
        return {}

    def _readings(self, kind: str) -> list[Reading | None]:
        """What can be read off every row, kept a kind of feature."""
        if kind not in self._read:
            self._read[kind] = [self.sample.reading(f"{kind}.{row}") for row in range(self.rows)]
        return self._read[kind]

    def scored(self) -> npt.NDArray[np.bool_]:
        """(n,) which of the sampled items can be judged by others: all, or none where one fold is empty."""
        fold = folds(self.sample.hashes)
        mixed = bool(fold.any() and not fold.all())
        return np.full(len(fold), mixed)


def _ends(values: Floats, level: float) -> tuple[float, float, float]:
    """Value, low and high of the mean of these items: exact where they are yes or no."""
    if not len(values):
        return (np.nan,) * 3
    found = rate(values, level=level) if np.isin(values, (0.0, 1.0)).all() else mean(values, level=level)
    low, high = (np.nan if end is None else end for end in (found.low, found.high))
    return found.value, low, high
