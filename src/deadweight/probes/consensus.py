"""Who attends to whom: consensus among the patches, and how much of a hub CLS is (after arXiv 2511.21635)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deadweight.probes.kinds import Facts, ImageProbe, needs_images
from deadweight.probes.layer import Layer
from deadweight.probes.similarity import mean_pair_cosine

TOLERANCE, STEPS = 1e-8, 200


def stationary(rows_BNN: Tensor) -> Tensor:
    """(B, N) float64: the distribution a random walk along attention settles into; each sums to 1.

    Power iteration from uniform until no image's ‖Δ‖₁ reaches 1e-8, at most 200 steps. It runs in float32 as far as
    that carries and is finished in float64.
    """
    batch, tokens = rows_BNN.shape[:2]
    rough = rows_BNN.new_full((batch, tokens), 1 / tokens)
    rough, steps = _settled(rows_BNN, rough, 1e-5 if rows_BNN.dtype == torch.float32 else TOLERANCE, STEPS)
    found, _ = _settled(rows_BNN.double(), rough.double(), TOLERANCE, STEPS - steps)
    return found


def _settled(rows_BNN: Tensor, start_BN: Tensor, tolerance: float, steps: int) -> tuple[Tensor, int]:
    now = start_BN
    for step in range(steps):
        after = torch.bmm(now[:, None], rows_BNN)[:, 0]
        after = after / after.sum(1, keepdim=True)
        moved = (after - now).abs().sum(1).max()
        now = after
        if moved < tolerance:
            return now, step + 1
    return now, steps


def aci(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Attention consensus: mean pairwise cosine between the attention rows of patch queries, heads averaged. Ours."""
    if layer.attention is None:
        return {}
    prefix = layer.attention.shape[1] - layer.patches.shape[1]
    return {"aci": mean_pair_cosine(layer.attention[:, prefix:])}


def cls_centrality(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Stationary probability of CLS under the head-averaged attention, times the number of tokens; 1 = no hub. Ours."""
    if layer.attention is None or layer.cls is None:
        return {}
    return {"cls_centrality": stationary(layer.attention)[:, 0] * layer.attention.shape[1]}


def cls_attention(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Mean attention from patches to CLS, times the number of tokens; 1 = as much as to any token. Ours."""
    if layer.attention is None or layer.cls is None:
        return {}
    prefix = layer.attention.shape[1] - layer.patches.shape[1]
    return {"cls_attention": layer.attention[:, prefix:, 0].double().mean(1) * layer.attention.shape[1]}


def _needs_cls(facts: Facts) -> str | None:
    return needs_images(facts) or (None if facts.has_cls else "the model has no CLS token")


ACI = ImageProbe(
    "aci", "consensus: mean cosine between the attention rows of patches", aci, lacks=needs_images, attention=True
)
CLS_CENTRALITY = ImageProbe(
    "cls_centrality", "where a walk along attention ends: share of CLS, times the number of tokens", cls_centrality,
    lacks=_needs_cls, attention=True,
)  # fmt: skip
CLS_ATTENTION = ImageProbe(
    "cls_attention", "mean attention from patches to CLS, times the number of tokens", cls_attention,
    lacks=_needs_cls, attention=True,
)  # fmt: skip
