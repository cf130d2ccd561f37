"""How much of what enters the first block is the positional encoding (arXiv 2511.21635's PE dominance)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from deadweight.anatomy import Anatomy
from deadweight.probes.kinds import Facts, ImageProbe
from deadweight.probes.layer import Layer, masked_mean
from deadweight.probes.packed_symmetric import Floats
from deadweight.probes.states.positions import lengths_of


def position_rows(anatomy: Anatomy, tokens: int) -> Tensor | None:
    """(N, D) the learned encoding of the `tokens` patch tokens (all tokens of a language model).

    None where the model has none, or where it holds another number of positions and is resampled on the way.
    Encodings held for prefix tokens come first and are left out.
    """
    if anatomy.positions is None:
        return None
    held = anatomy.positions.weight if isinstance(anatomy.positions, nn.Embedding) else anatomy.positions
    if not isinstance(held, Tensor):
        return None
    rows_PD = held.detach().reshape(-1, held.shape[-1])
    if anatomy.kind == "causal_lm":
        first = int(getattr(anatomy.positions, "offset", 0))
        return rows_PD[first : first + tokens] if first + tokens <= len(rows_PD) else None
    extra = len(rows_PD) - tokens
    return rows_PD[extra:] if 0 <= extra <= anatomy.prefix_tokens else None


def position_norms(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Per image, mean ‖PE‖₂ and mean ‖z₀‖₂ over its tokens, z₀ the embedding before PE; at row 0 only."""
    lengths = lengths_of(layer)
    if lengths is None:
        return {}
    pe_N, z0_BN = lengths
    return {
        "position_norm": masked_mean(pe_N.expand_as(z0_BN), layer.mask),
        "embedding_norm": masked_mean(z0_BN, layer.mask),
    }


def dominance(means: Mapping[str, Floats]) -> Floats:
    """PE dominance = mean ‖PE‖₂ / mean ‖z₀‖₂ over positions and images."""
    return means["position_norm"] / means["embedding_norm"]


def _needs_learned_positions(facts: Facts) -> str | None:
    if facts.position_kind == "learned":
        return None
    if facts.position_kind == "none":
        return "the model has no positional encoding"
    if facts.position_kind == "sinusoidal":
        return "the positional encoding is sinusoidal: nothing about it was learned"
    return f"the positional encoding is {facts.position_kind}: nothing is added to the embeddings"


PE_DOMINANCE = ImageProbe(
    "pe_dominance",
    "length of the positional encoding over that of the embeddings it is added to",
    position_norms,
    ("position_norm", "embedding_norm"),
    dominance,
    _needs_learned_positions,
)
