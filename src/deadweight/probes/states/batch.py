"""What one pass over a batch leaves for the states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deadweight.probes.hashes import Hashes
from deadweight.probes.layer import Labels
from deadweight.probes.states.positions import PositionNorms


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch as the states take it.

    hashes:    (B,) see :mod:`deadweight.probes.hashes`.
    measures:  name -> (rows, B) float64 per-image values; NaN where the measure does not apply.
    labels:    (B,) class of each item, None without labels.
    features:  ``"cls.0"``, ``"pooled.3"`` … -> (B, D) float32, and `HEAD_INPUT`, what the head's last layer is given;
               empty where neither class columns nor scrambling are asked for: the tradeoff's onset needs both.
    predicted: (B,) the model's own answers, None where it has no head.
    positions: lengths of the positional encoding and of what it is added to; None where nothing was looked at.
    """

    hashes: Hashes
    measures: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    labels: Labels | None = None
    features: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    predicted: Labels | None = None
    positions: PositionNorms | None = None
