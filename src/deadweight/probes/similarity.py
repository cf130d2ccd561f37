"""How alike the tokens of an image are: arXiv 2511.21635's token similarity, with and without the mean token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deadweight.probes.kinds import Facts, ImageProbe
from deadweight.probes.layer import Layer


def mean_pair_cosine(tokens_BND: Tensor, norms_BN: Tensor | None = None, mask_BN: Tensor | None = None) -> Tensor:
    """(B,) float64: mean cosine over the pairs i ≠ j of an image's tokens, in O(N·D).

    (‖Σᵢ ẑᵢ‖² − Σᵢ ‖ẑᵢ‖²) / (N (N − 1)), with ẑᵢ = zᵢ/‖zᵢ‖, and 0 for a zero vector, whose cosines count as 0.
    NaN for fewer than two tokens. Tokens where `mask_BN` is False are left out.
    """
    inverse_BN = inverse_norms(tokens_BND, norms_BN, mask_BN)
    total_BD = torch.bmm(inverse_BN[:, None], tokens_BND)[:, 0].double()
    own_B = (inverse_BN > 0).sum(1)
    count_B = _counts(tokens_BND, mask_BN)
    return (total_BD.square().sum(1) - own_B) / _positive(count_B * (count_B - 1))


def inverse_norms(tokens_BND: Tensor, norms_BN: Tensor | None = None, mask_BN: Tensor | None = None) -> Tensor:
    """(B, N) 1/‖z‖, and 0 for zero vectors and masked tokens."""
    norms = torch.linalg.vector_norm(tokens_BND, dim=-1) if norms_BN is None else norms_BN
    kept = norms > 0 if mask_BN is None else (norms > 0) & mask_BN
    return torch.where(kept, 1 / norms, 0.0)


def raw_similarity(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Per image, mean cosine over pairs of distinct patch tokens (arXiv 2511.21635)."""
    count_B = _counts(layer.patches, layer.mask)
    alike = layer.direction.square().sum(1) - (layer.inverse > 0).sum(1)
    return {"raw_similarity": alike / _positive(count_B * (count_B - 1))}


def centered_similarity(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """The same after subtracting the image's mean patch token.

    What the subtraction leaves of a token that equals the mean is rounding, and counts as a zero vector.
    """
    norms_BN = torch.linalg.vector_norm(layer.centred, dim=-1)
    floor_BN = 8 * torch.finfo(norms_BN.dtype).eps * layer.norms
    norms_BN = torch.where(norms_BN > floor_BN, norms_BN, 0.0)
    return {"centered_similarity": mean_pair_cosine(layer.centred, norms_BN, layer.mask)}


def cls_similarity(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Per image, mean cosine between the CLS token and the patch tokens; nothing where there is no CLS."""
    if layer.cls is None:
        return {}
    cls_BD = layer.cls.double()
    cosine_B = (torch.nn.functional.normalize(cls_BD, dim=1) * layer.direction).sum(1)
    return {"cls_similarity": cosine_B / _counts(layer.patches, layer.mask)}


def _counts(tokens_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
    if mask_BN is None:
        return torch.full((len(tokens_BND),), float(tokens_BND.shape[1]), dtype=torch.float64, device=tokens_BND.device)
    return mask_BN.sum(1).double()


def _positive(pairs_B: Tensor) -> Tensor:
    """Zero pairs make the mean undefined (NaN), whatever rounding left in the numerator."""
    return torch.where(pairs_B > 0, pairs_B, float("nan"))


def _needs_cls(facts: Facts) -> str | None:
    return None if facts.has_cls else "the model has no CLS token"


RAW_SIMILARITY = ImageProbe("raw_similarity", "mean cosine between the patch tokens of an image", raw_similarity)
CENTERED_SIMILARITY = ImageProbe(
    "centered_similarity", "the same after subtracting the image's mean patch token", centered_similarity
)
CLS_SIMILARITY = ImageProbe(
    "cls_similarity", "mean cosine between the CLS token and the patch tokens", cls_similarity, lacks=_needs_cls
)
