"""Ridge least squares on Gram matrices: what is fitted to never has to be kept.

For rows h (inputs), r (what is missing of the output) and weights w, the best change D of a linear layer minimises
Σ w |r − h D|² + λ |D|². Sums over rows of w h'h, w h'r and w r'r are all that is needed, to fit and to judge: batches
are added up and forgotten. The ridge pulls towards no change, so a large one is no refit at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PANELS = 8  # of columns, in which a Gram matrix is summed: what lies below the diagonal is a mirror image
SKETCH = 64  # random combinations of the outputs, on which a ridge is chosen
RIDGES = tuple(10.0**power for power in range(-6, 3))  # of the mean of the Gram matrix's diagonal
START = RIDGES.index(1e-3)


class Gram:
    """Weighted sums over rows; ``bias`` adds an input that is always 1."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, device: torch.device) -> None:
        size = inputs + bias
        self.bias, self.rows = bias, 0
        self._upper_II = torch.zeros(size, size, device=device)
        self.hr_IO = torch.zeros(size, outputs, device=device)
        self.rr = 0.0

    def add(self, h_NI: Tensor, r_NO: Tensor, w_N: Tensor) -> None:
        """Add N rows."""
        root_N1 = w_N.sqrt()[:, None]
        h = h_NI * root_N1
        r = r_NO * root_N1
        if self.bias:
            h = torch.cat([h, root_N1], dim=1)
        add_gram(self._upper_II, h)
        self.hr_IO.addmm_(h.T, r)
        self.rr += float(r.double().square().sum())
        self.rows += int((w_N > 0).sum())

    def inner(self) -> Tensor:
        """(inputs, inputs) Σ w h'h."""
        return mirrored(self._upper_II)

    def error(self, change_IO: Tensor) -> float:
        """Σ w |r − h D|² over the rows seen."""
        return self.rr + _more(self.inner().double().cpu(), self.hr_IO.double().cpu(), change_IO)


def add_gram(upper_II: Tensor, h_NI: Tensor) -> None:
    """Add h'h to `upper_II`, all of it that lies on and above the diagonal, for little more than half the work."""
    size = len(upper_II)
    step = max(128, -(-size // PANELS))
    for start in range(0, size, step):
        upper_II[start : start + step, start:].addmm_(h_NI[:, start : start + step].T, h_NI[:, start:])


def mirrored(upper_II: Tensor) -> Tensor:
    """The symmetric matrix of which `upper_II` holds what is on and above the diagonal."""
    return upper_II.triu() + upper_II.triu(1).T


def _more(hh_II: Tensor, hr_IO: Tensor, change_IO: Tensor) -> float:
    """What a change adds to Σ w |r|²."""
    return float((change_IO * (hh_II @ change_IO - 2 * hr_IO)).sum())


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

    The ridge is looked for downhill from ``RIDGES[start]``: the held-out error has one valley in it. Where a layer has
    many outputs it is chosen by the error of some random combinations of them, and the error itself is taken once.
    """
    system, few = train.inner(), _sketched(train.hr_IO)
    judge, wanted = held_out.inner().double().cpu(), _sketched(held_out.hr_IO)

    def at(place: int) -> tuple[float, Tensor | None]:
        factor = _factor(system, RIDGES[place], train.bias)
        if factor is None:
            return float("inf"), None
        return _more(judge, wanted, torch.cholesky_solve(few, factor)), factor

    place = start
    best, factor = at(place)
    for step in (1, -1):
        while 0 <= place + step < len(RIDGES) and (other := at(place + step))[0] < best:
            place, (best, factor) = place + step, other
        if place != start:
            break
    before = after = held_out.rr
    if factor is not None:
        after = held_out.error(torch.cholesky_solve(train.hr_IO.double().cpu(), factor))
    if not after < before:
        return Fit(None, RIDGES[place], before, before, START)
    change = solve(system + held_out.inner(), train.hr_IO + held_out.hr_IO, RIDGES[place], train.bias)
    return Fit(change, RIDGES[place], before, after, place)


def _sketched(hr_IO: Tensor) -> Tensor:
    """(inputs, at most `SKETCH`) float64: random combinations of the outputs, always the same."""
    outputs = hr_IO.shape[1]
    whole = hr_IO.double().cpu()
    if outputs <= 2 * SKETCH:
        return whole
    signs = torch.randint(2, (outputs, SKETCH), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    return whole @ signs


def solve(hh_II: Tensor, hr_IO: Tensor, ridge: float, bias: bool) -> Tensor | None:
    """(H'WH + λI)⁻¹ H'WR in float64, λ being `ridge` times the mean of the diagonal; the bias is not pulled.

    None where the matrix is singular for all that.
    """
    factor = _factor(hh_II, ridge, bias)
    return None if factor is None else torch.cholesky_solve(hr_IO.double().cpu(), factor)


def _factor(hh_II: Tensor, ridge: float, bias: bool) -> Tensor | None:
    """The Cholesky factor of H'WH + λI."""
    system = hh_II.detach().to("cpu", torch.float64, copy=True)
    inputs = len(system) - bias
    diagonal = system.diagonal()
    mean = float(diagonal[:inputs].mean())
    diagonal[:inputs] += max(ridge * mean, torch.finfo(torch.float64).tiny)
    factor, failed = torch.linalg.cholesky_ex(system)
    return None if int(failed) or not mean > 0 else factor
