"""How much a block turns the tokens it is given: ShortGPT's block influence (arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deadweight.probes.kinds import ImageProbe
from deadweight.probes.layer import Layer, masked_mean


def block_influence(before: Layer, after: Layer) -> Tensor:
    """(B,) float64: 1 − mean cosine between a block's input and output over an image's patch tokens.

    Computed as (‖y − x‖² − (‖y‖ − ‖x‖)²) / (2 ‖x‖ ‖y‖), which unlike 1 − x̂·ŷ keeps its digits when a block hardly turns
    its input. A zero vector has cosine 0 with everything.
    """
    apart_BN = torch.linalg.vector_norm(after.patches - before.patches, dim=-1).double()
    x_BN, y_BN = before.norms.double(), after.norms.double()
    turned_BN = (apart_BN.square() - (y_BN - x_BN).square()).clamp_min(0) / (2 * x_BN * y_BN)
    undefined_BN = (after.inverse == 0) | (before.inverse == 0)
    return masked_mean(turned_BN.masked_fill(undefined_BN, 1.0), after.mask)


def influence(layer: Layer, before: Layer | None) -> Mapping[str, Tensor]:
    """Block influence at the rows of blocks whose input and output have the same shape; else nothing."""
    if before is None or before.patches.shape != layer.patches.shape:
        return {}
    return {"influence": block_influence(before, layer)}


INFLUENCE = ImageProbe("influence", "1 − mean cosine between a block's input and output over patch tokens", influence)
