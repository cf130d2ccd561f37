"""How much a block turns the tokens it is given: ShortGPT's block influence (arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deadweight.probes.layer import Layer, masked_mean
from deadweight.probes.probe import ImageProbe


def block_influence(before: Layer, after: Layer) -> Tensor:
    """(B,) float64: 1 − mean cosine between a block's input and output over an image's patch tokens.

    Computed as ½‖x̂ − ŷ‖², which unlike 1 − x̂·ŷ keeps its digits when a block hardly turns its input.
    A zero vector has cosine 0 with everything.
    """
    apart_BND = after.patches * after.inverse[..., None]
    apart_BND -= before.patches * before.inverse[..., None]
    turned_BN = apart_BND.square().sum(-1).double() / 2
    undefined_BN = (after.inverse == 0) | (before.inverse == 0)
    return masked_mean(turned_BN.masked_fill(undefined_BN, 1.0), after.mask)


def influence(layer: Layer, before: Layer | None) -> Mapping[str, Tensor]:
    """Block influence at the rows of blocks whose input and output have the same shape; else nothing."""
    if before is None or before.patches.shape != layer.patches.shape:
        return {}
    return {"influence": block_influence(before, layer)}


INFLUENCE = ImageProbe("influence", "1 − mean cosine between a block's input and output over patch tokens", influence)
