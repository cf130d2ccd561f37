"""A fixed sequence of tests: from the last layer down, as far as each still passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadweight.errors import InputError
from deadweight.statistics.estimate import LEVEL, Estimate
from deadweight.statistics.proportions import accuracy_loss

ONE_SIDED = 1 - 2 * (1 - LEVEL)  # level of an interval of which each end alone is wrong in 5 %


@dataclass(frozen=True)
class UsefulDepth:
    """Where a sequence of tests stopped.

    layer:  the first layer from which on every one is within the margin of the last.
    losses: of each layer against the last, in order; the last is not among them.
    """

    layer: int
    losses: tuple[Estimate, ...]


def fixed_sequence(losses: Sequence[Estimate], margin: float, *, error: float = 1 - LEVEL) -> int:
    """Index of the first estimate from which on all are shown to lie below the margin; ``len(losses)`` if none is.

    Tests start at the last and stop at the first failure, each one-sided at `error`. The chance that anything among
    what passed is truly at or above the margin is at most `error`, however many layers there are: for that the first
    of those, counted from the end, must pass its own test (Maurer, Hothorn and Lehmacher 1995).

    Parameters
    ----------
    losses:
        In the order of the layers, each with its p against this margin.
    error:
        Of the claim.

    Examples
    --------
    >>> shown, not_shown = Estimate(0.0, None, 0.005, 500, p=0.01), Estimate(0.01, None, 0.02, 500, p=0.8)
    >>> fixed_sequence([shown, not_shown, shown, shown], 0.01)
    2
    """
    first = len(losses)
    for index in reversed(range(len(losses))):
        loss = losses[index]
        if loss.p is None or loss.value >= margin or loss.p / 2 > error:
            break
        first = index
    return first


def useful_depth(correct: npt.ArrayLike, margin: float = 0.01) -> UsefulDepth:
    """The earliest layer after which a readout is within `margin` of that after the last, and so at all after it.

    Parameters
    ----------
    correct:
        (layers, items) right or wrong of the readout after each layer, the last among them.
    margin:
        The loss of accuracy one accepts.

    Returns
    -------
    UsefulDepth
        The claim is false in at most 5 % of models (:func:`fixed_sequence`), whatever the order of the items. The
        losses have 90 % intervals, of which each end alone is wrong in at most 5 %: the upper ends are what was tested.

    Raises
    ------
    InputError
        Not a matrix of at least one layer and item.

    Examples
    --------
    >>> found = useful_depth([[0] * 400, [1] * 400, [1] * 400])
    >>> found.layer, round(found.losses[1].high, 4)
    (1, 0.0075)
    """
    bits = np.asarray(correct, dtype=np.float64)
    if bits.ndim != 2 or not bits.size:
        raise InputError(f"right/wrong of shape {bits.shape}", expected="layers by items")
    losses = tuple(accuracy_loss(bits[-1], layer, margin, level=ONE_SIDED) for layer in bits[:-1])
    return UsefulDepth(fixed_sequence(losses, margin), losses)
