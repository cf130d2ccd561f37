"""How answers align with the truth, the prior and the prompt, item by item (arXiv 2511.21038, section on metrics).

Everything takes class numbers [items] and gives float64 indicators [items], so that whoever averages them can also
say how sure the average is. Where an item does not count the indicator is NaN: an answer that is no label
(:data:`INVALID`) is neither right nor wrong, as the paper's D_k leaves such items out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Classes = NDArray[np.int64]
Indicators = NDArray[np.float64]

JOINT_RATE_REMARK = (
    "φ leaves no label where it is, so an answer cannot be both right and what inverted demonstrations ask for: "
    "this rate is zero by construction, whatever the model does"
)


INVALID = -1


def permutation(phi: Mapping[str, str], labels: Sequence[str]) -> Classes:
    """φ as class numbers: the class ``labels[i]`` becomes is at i."""
    return np.asarray([labels.index(phi[label]) for label in labels], dtype=np.int64)


def agreement(predicted: ArrayLike, wanted: ArrayLike) -> Indicators:
    """1 where the two are the same class.

    Truth alignment (accuracy) with y*, prior alignment with f₀(x), prompt alignment with y_prompt.
    """
    one, two = np.asarray(predicted), np.asarray(wanted)
    return np.where((one == INVALID) | (two == INVALID), np.nan, (one == two).astype(np.float64))


def joint(predicted: ArrayLike, gold: ArrayLike, phi: Classes) -> Indicators:
    """1 where an answer is right and follows the inverted prompt; see :data:`JOINT_RATE_REMARK`."""
    return agreement(predicted, gold) * agreement(predicted, phi[np.asarray(gold)])


def override(prior: ArrayLike, predicted: ArrayLike, gold: ArrayLike, phi: Classes) -> Indicators:
    """Among items whose prior is right, 1 where the answer became φ(y*); NaN where the prior is wrong (ours)."""
    moved = agreement(predicted, phi[np.asarray(gold)])
    return np.where(np.asarray(prior) == np.asarray(gold), moved, np.nan)


def excess_override(inverted: ArrayLike, control: ArrayLike, gold: ArrayLike, phi: Classes) -> Indicators:
    """Answers φ(y*) under inverted demonstrations minus the same under randomly labelled ones (ours), −1, 0 or 1."""
    target = phi[np.asarray(gold)]
    return agreement(inverted, target) - agreement(control, target)


def coherence(predicted: ArrayLike, wanted: ArrayLike, classes: int) -> float:
    """Cohen's κ between two classifications; NaN where chance alone would agree always (κ is undefined)."""
    one, two = np.asarray(predicted), np.asarray(wanted)
    valid = (one != INVALID) & (two != INVALID) if len(one) else np.zeros(0, dtype=bool)
    one, two = one[valid], two[valid]
    if not len(one):
        return float("nan")
    observed = float((one == two).mean())
    shares = [np.bincount(values, minlength=classes) / len(values) for values in (one, two)]
    chance = float(shares[0] @ shares[1])
    return float("nan") if chance == 1 else (observed - chance) / (1 - chance)


def quadrants(prior: ArrayLike, predicted: ArrayLike, gold: ArrayLike) -> dict[str, int]:
    """How many items fall on each side of prior × answer; items without a valid answer to both are left out."""
    before, after = agreement(prior, gold), agreement(predicted, gold)
    return {
        "right prior kept": int(((before == 1) & (after == 1)).sum()),
        "right prior broken": int(((before == 1) & (after == 0)).sum()),
        "wrong prior repaired": int(((before == 0) & (after == 1)).sum()),
        "wrong prior left": int(((before == 0) & (after == 0)).sum()),
    }
