"""An output layer refitted at many widths for the price of one factorisation (ours).

With the units in the order in which they would be kept, the system of the first k of them is the leading k × k block of
the whole one, and so is its Cholesky factor: one factor serves all widths. What is solved is that of
``surgery/least_squares.py``, a ridge that pulls towards the weights as they are. With L L' the system of all units
with its ridge and W the weights, what the first k are to write is the leading k × k system's solution for the first k
rows of L L' W; half of the way there is L' W, whatever the width. In float32: a survey's ridge is large.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Nested:
    """The Gram matrix of hidden units in the order `order`, a constant input for the bias before them.

    gram_II: sums over tokens; the bias's input last, where there is one.
    ridge:   of the mean of the diagonal.
    """

    def __init__(self, gram_II: Tensor, order: Tensor, *, bias: bool, ridge: float) -> None:
        self.bias = int(bias)
        units = len(gram_II) - self.bias
        self.rows = torch.cat([torch.arange(units, units + self.bias), order])
        system = gram_II.detach().to("cpu", torch.float32)[self.rows][:, self.rows]
        diagonal = system.diagonal()
        mean = float(diagonal[self.bias :].mean())
        diagonal[self.bias :] += max(ridge * mean, torch.finfo(torch.float32).tiny)
        factor, failed = torch.linalg.cholesky_ex(system)
        self.factor: Tensor | None = None if int(failed) or not mean > 0 else factor

    def refitted(self, weight_ID: Tensor, counts: Sequence[int]) -> dict[int, Tensor]:
        """(I, D) float32 output layers by the number of units kept: zeros for the others, the bias last.

        Nothing where the system is singular.
        """
        if self.factor is None:
            return {}
        halfway = self.factor.T @ weight_ID.float().cpu()[self.rows]
        found: dict[int, Tensor] = {}
        for count in counts:
            size = count + self.bias
            found[count] = torch.zeros_like(weight_ID, device="cpu", dtype=torch.float32)
            found[count][self.rows[:size]] = torch.linalg.solve_triangular(
                self.factor[:size, :size].T, halfway[:size], upper=True
            )
        return found

    def solve(self, right_ID: Tensor) -> Tensor:
        """(I, D) float32 the change of the output layer, all units there, whose sums with what is missing are given."""
        change = torch.zeros_like(right_ID, device="cpu", dtype=torch.float32)
        if self.factor is not None:
            change[self.rows] = torch.cholesky_solve(right_ID.float().cpu()[self.rows], self.factor)
        return change
