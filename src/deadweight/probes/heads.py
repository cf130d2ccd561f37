"""What the head reads and what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from deadweight.anatomy import Anatomy
from deadweight.evaluation import logits_of
from deadweight.probes.layer import Labels
from deadweight.probes.packed_symmetric import Floats


def last_linear(anatomy: Anatomy) -> nn.Linear | None:
    """The linear layer that makes the logits, None where the head has none."""
    if anatomy.head is None:
        return None
    layers = [part for part in anatomy.head.modules() if isinstance(part, nn.Linear)]
    return layers[-1] if layers else None


def head_weights(anatomy: Anatomy) -> Floats:
    """(C, F) float64; (0, 0) where the head is not linear."""
    layer = last_linear(anatomy)
    if layer is None or anatomy.kind != "vision":
        return np.zeros((0, 0))
    weights: Floats = layer.weight.detach().double().cpu().numpy()
    return weights


def answers_of(output: Any, outputs: int) -> Labels | None:
    """(B,) the classes a model's output names; None unless it is one logit a class."""
    try:
        logits = logits_of(output)
    except TypeError:
        return None
    if logits.dim() != 2 or not outputs or logits.shape[1] != outputs:
        return None
    answers: Labels = logits.argmax(1).cpu().numpy()
    return answers


def other_labels(classes: Labels, outputs: int) -> str | None:
    """Why labels are not the head's own; None when they may be compared.

    They are taken to be where every label is one of the outputs and at least half of the outputs were seen.
    """
    if not outputs or not len(classes):
        return None
    if classes.min() < 0 or classes.max() >= outputs:
        return f"labels go up to {int(classes.max())} and the head tells {outputs} classes apart"
    if 2 * len(classes) < outputs:
        return f"labels of {len(classes)} classes were seen and the head tells {outputs} apart"
    return None
