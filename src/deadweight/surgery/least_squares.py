"""Ridge least squares on Gram matrices: what is fitted to never has to be kept.

For rows h (inputs), r (what is missing of the output) and weights w, the best change D of a linear layer minimises
Σ w |r − h D|² + λ |D|². Sums over rows of w h'h, w h'r and w r'r are all that is needed, to fit and to judge: batches
are added up and forgotten. The ridge pulls towards no change, so a large one is no refit at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = tuple(10.0**power for power in range(-6, 3))  # of the mean of the Gram matrix's diagonal
START = RIDGES.index(1e-3)


class Gram:
    """Weighted sums over rows; ``bias`` adds an input that is always 1."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, device: torch.device) -> None:
        size = inputs + bias
        self.bias, self.rows = bias, 0
        self.hh_II = torch.zeros(size, size, device=device)
        self.hr_IO = torch.zeros(size, outputs, device=device)
        self.rr = 0.0

    def add(self, h_NI: Tensor, r_NO: Tensor, w_N: Tensor) -> None:
        """Add N rows."""
        root_N1 = w_N.sqrt()[:, None]
        h = h_NI * root_N1
        r = r_NO * root_N1
        if self.bias:
            h = torch.cat([h, root_N1], dim=1)
        self.hh_II.addmm_(h.T, h)
        self.hr_IO.addmm_(h.T, r)
        self.rr += float(r.double().square().sum())
        self.rows += int((w_N > 0).sum())

    def error(self, change_IO: Tensor) -> float:
        """Σ w |r − h D|² over the rows seen."""
        quadratic = float((change_IO * (self.hh_II.double().cpu() @ change_IO)).sum())
        return self.rr - 2 * float((change_IO * self.hr_IO.double().cpu()).sum()) + quadratic


@dataclass(frozen=True)
class Fit:
    """The change of a layer, and its held-out error before and after.

    change: (inputs (+ 1 with a bias), outputs) float64 on the CPU; None where no ridge lowered the held-out error.
    ridge:  of the mean of the Gram matrix's diagonal.
    """

    change: Tensor | None
    ridge: float
    before: float
    after: float
    start: int


def fit(train: Gram, held_out: Gram, *, start: int = START) -> Fit:
    """The change fitted to `train` with the ridge that suits `held_out` best, then to both with that ridge.

    The ridge is looked for downhill from ``RIDGES[start]``: the held-out error has one valley in it.
    """
    errors: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in errors:
            change = solve(train.hh_II, train.hr_IO, RIDGES[place], train.bias)
            errors[place] = float("inf") if change is None else held_out.error(change)
        return errors[place]

    place = start
    for step in (1, -1):
        while 0 <= place + step < len(RIDGES) and at(place + step) < at(place):
            place += step
    after, before = at(place), held_out.rr
    if not after < before:
        return Fit(None, RIDGES[place], before, before, START)
    change = solve(train.hh_II + held_out.hh_II, train.hr_IO + held_out.hr_IO, RIDGES[place], train.bias)
    return Fit(change, RIDGES[place], before, after, place)


def solve(hh_II: Tensor, hr_IO: Tensor, ridge: float, bias: bool) -> Tensor | None:
    """(H'WH + λI)⁻¹ H'WR in float64, λ being `ridge` times the mean of the diagonal; the bias is not pulled.

    None where the matrix is singular for all that.
    """
    system = hh_II.detach().to("cpu", torch.float64, copy=True)
    inputs = len(system) - bias
    diagonal = system.diagonal()
    mean = float(diagonal[:inputs].mean())
    diagonal[:inputs] += max(ridge * mean, torch.finfo(torch.float64).tiny)
    factor, failed = torch.linalg.cholesky_ex(system)
    if int(failed) or not mean > 0:
        return None
    return torch.cholesky_solve(hr_IO.double().cpu(), factor)
