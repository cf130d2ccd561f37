"""Columns of what can be read off a layer (`states/readers.py`)."""

from __future__ import annotations

import numpy as np

from deadweight.probes.kinds import ReadoutProbe, needs_head
from deadweight.probes.packed_symmetric import Floats
from deadweight.probes.states.feature_sample import Reading


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
