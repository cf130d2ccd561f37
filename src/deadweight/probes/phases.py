"""Cliff, plateau and climb: the phases of a curve over the layers, and the regime a model ends in.

The paper (arXiv 2511.21635) names the phases; how they are found is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from deadweight.probes.packed_symmetric import Floats
from deadweight.probes.states.image_means import LEVEL

SEGMENTS = 4
SHARE = 0.2
COLLAPSE, DIFFUSION = 0.002, 0.018

Knots = tuple[int, ...]


@dataclass(frozen=True)
class Phase:
    """One phase of one curve: layers `first` to `last`, with intervals over images.

    name:    ``cliff``, ``plateau`` or ``climb``.
    share:   of the bootstrap replicates, how many have the phase at all.
    """

    curve: str
    name: str
    first: int
    last: int
    first_low: int
    first_high: int
    last_low: int
    last_high: int
    share: float


@dataclass(frozen=True)
class Phases:
    """The phases of the similarity curves, and which of the three a curve lacks."""

    phases: tuple[Phase, ...]
    missing: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """A row a phase."""
        return pd.DataFrame(self.phases, columns=list(Phase.__dataclass_fields__))

    def of(self, curve: str) -> dict[str, Phase]:
        """name -> phase of one curve."""
        return {phase.name: phase for phase in self.phases if phase.curve == curve}


def phases_of(curve: str, values_L: Floats, replicates_RL: Floats) -> Phases:
    """The phases of one curve, layers 0 to L.

    A continuous line of up to four straight segments whose knots are layers; the number of segments by BIC, its noise
    no smaller than the bootstrap's. A segment is flat where, kept up over the whole depth, it would change by less than
    half the curve's range; so is a run of falling or rising ones whose ends differ by less than a fifth of it. Cliff:
    the first run that falls; climb: the last that rises; plateau: the longest that is flat. Boundaries are fitted
    again on every replicate with as many segments.
    """
    noise = float(replicates_RL.var(0).mean()) if len(replicates_RL) else 0.0
    knots = best_knots(values_L, noise)
    found = _named(values_L, knots)
    again = _knots_of(replicates_RL, len(knots))
    drawn = [_named(row, own) for row, own in zip(replicates_RL, again, strict=True)]
    phases = []
    for name, (first, last) in found.items():
        ends = np.array([own[name] for own in drawn if name in own] or [(first, last)])
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(ends, [tail, 1 - tail], axis=0, method="nearest").astype(int).tolist()
        share = float(np.mean([name in own for own in drawn])) if drawn else 1.0
        phases.append(Phase(curve, name, first, last, low[0], high[0], low[1], high[1], share))
    missing = [f"{curve} has no {name}" for name in ("cliff", "plateau", "climb") if name not in found]
    return Phases(tuple(phases), tuple(missing))


def best_knots(values_L: Floats, noise: float) -> Knots:
    """Inner knots of the segmented line with the smallest BIC: n log(max(RSS/n, noise)) + parameters · log n."""
    n = len(values_L)
    best: tuple[float, Knots] = (np.inf, ())
    floor = max(noise, 1e-12 * float(np.square(values_L).mean()), np.finfo(float).tiny)
    for inner in range(SEGMENTS):
        parameters = 2 + 2 * inner  # intercept, slope, and a change of slope and a place a knot
        if parameters >= n:
            break
        for knots in _choices(n, inner):
            residual = values_L - _hat(n, knots) @ values_L
            bic = n * np.log(max(float(residual @ residual) / n, floor)) + parameters * np.log(n)
            if bic < best[0] - 1e-9:
                best = (bic, knots)
    return best[1]


def tradeoff_onset(r2_self: Floats, correct: npt.NDArray[np.bool_]) -> int | None:
    """First layer from which R²(self) falls at every further layer while the readout gains no more than one standard
    error at any; None where there is no such layer before the last.

    r2_self: (L + 1,) layers 0 to L; correct: (L + 1, n) whether the readout is right, by item.
    """
    last = len(r2_self) - 1
    for layer in range(last):
        if not (np.diff(r2_self[layer:]) < 0).all():
            continue
        gained = correct[layer + 1 :].astype(np.float64) - correct[layer]
        error = gained.std(1) / np.sqrt(gained.shape[1])
        if (gained.mean(1) <= error).all():
            return layer
    return None


def regime(isi: float) -> str:
    """What becomes of a token's own content by the last block, by its scrambling index there.

    ``communication collapse`` below 0.002, ``chaotic diffusion`` above 0.018, ``controlled consensus`` between. The
    paper gives 0.004 to 0.009 for its best runs; half the lower and twice the upper end are ours. ``unknown`` of NaN.
    """
    if np.isnan(isi):
        return "unknown"
    if isi < COLLAPSE:
        return "communication collapse"
    return "chaotic diffusion" if isi > DIFFUSION else "controlled consensus"


def _named(values_L: Floats, knots: Knots) -> dict[str, tuple[int, int]]:
    """name -> (first layer, last layer)."""
    last = len(values_L) - 1
    edges = [0, *knots, last]
    fitted = _hat(len(values_L), knots) @ values_L
    tall = float(np.ptp(values_L))
    if tall <= 1e-12 * np.abs(values_L).max():
        return {"plateau": (0, last)}
    kinds = [_kind(fitted[end] - fitted[start], (end - start) / last, tall) for start, end in itertools.pairwise(edges)]
    runs = _runs(kinds, edges)
    runs = _runs([kind if abs(fitted[end] - fitted[start]) > SHARE * tall else 0 for kind, start, end in runs],
                 [0, *(end for _, _, end in runs)])  # fmt: skip
    found: dict[str, tuple[int, int]] = {}
    for kind, start, end in runs:
        name = ("cliff", "plateau", "climb")[kind + 1]
        known = found.get(name)
        if known is None or kind == 1 or (kind == 0 and end - start > known[1] - known[0]):
            found[name] = (start, end)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _kind(change: float, share: float, tall: float) -> int:
    """-1 for a segment that falls, 1 for one that rises, 0 for one less than half as steep as the curve is tall."""
    if abs(change) / share <= tall / 2:
        return 0
    return 1 if change > 0 else -1


def _runs(kinds: Sequence[int], edges: Sequence[int]) -> list[tuple[int, int, int]]:
    """(kind, first layer, last layer) of every run of segments of one kind."""
    runs: list[tuple[int, int, int]] = []
    for kind, (start, end) in zip(kinds, itertools.pairwise(edges), strict=True):
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], end)
        else:
            runs.append((kind, start, end))
    return runs


def _choices(n: int, inner: int) -> list[Knots]:
    return list(itertools.combinations(range(1, n - 1), inner))


def _knots_of(curves_RL: Floats, inner: int) -> Sequence[Knots]:
    """The best knots, `inner` of them, of every curve."""
    if not len(curves_RL):
        return []
    n = curves_RL.shape[1]
    choices = _choices(n, inner)
    losses = np.stack([np.square(curves_RL - curves_RL @ _hat(n, knots)).sum(1) for knots in choices])
    return [choices[place] for place in losses.argmin(0)]


_HATS: dict[tuple[int, Knots], Floats] = {}


def _hat(n: int, knots: Knots) -> Floats:
    """(n, n) projection onto continuous lines with these knots; symmetric."""
    if (n, knots) not in _HATS:
        x = np.arange(n, dtype=np.float64)
        basis, _ = np.linalg.qr(np.stack([np.ones(n), x, *(np.maximum(x - knot, 0) for knot in knots)], 1))
        _HATS[n, knots] = basis @ basis.T
    return _HATS[n, knots]
