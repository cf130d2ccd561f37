"""How much of what enters the first block is the positional encoding (arXiv 2511.21635's PE dominance)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.anatomy import Anatomy
from deadweight.probes.layer import Layer, masked_mean
from deadweight.probes.probe import Facts, Floats, ImageProbe


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


def _lengths(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """(N,) ‖PE‖₂ and (B, N) ‖z₀‖₂, z₀ the embedding before PE, in float64; None but at row 0 of a learned encoding."""
    if layer.positions is None or layer.embeddings is None:
        return None
    pe_N = torch.linalg.vector_norm(layer.positions, dim=-1).double()
    return pe_N, torch.linalg.vector_norm(layer.embeddings, dim=-1).double()


def position_norms(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """Per image, mean ‖PE‖₂ and mean ‖z₀‖₂ over its tokens, z₀ the embedding before PE; at row 0 only."""
    lengths = _lengths(layer)
    if lengths is None:
        return {}
    pe_N, z0_BN = lengths
    return {
        "position_norm": masked_mean(pe_N.expand_as(z0_BN), layer.mask),
        "embedding_norm": masked_mean(z0_BN, layer.mask),
    }


@dataclass(frozen=True, eq=False)
class PositionNorms:
    """Lengths at every position, summed over images: a commutative monoid, identity ``PositionNorms()``.

    images, encoding, embedding: (N,) images with a token there, sums of ‖PE‖₂ and of ‖z₀‖₂ over them.
    """

    images: Floats = field(default_factory=lambda: np.zeros(0))
    encoding: Floats = field(default_factory=lambda: np.zeros(0))
    embedding: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, layer: Layer) -> PositionNorms:
        """Of a batch at row 0; the identity where the model has no encoding to measure."""
        lengths = _lengths(layer)
        if lengths is None:
            return cls()
        pe_N, z0_BN = lengths
        counted_BN = torch.ones_like(z0_BN) if layer.mask is None else layer.mask.double()
        images_N = counted_BN.sum(0)
        sums = (images_N, images_N * pe_N, (counted_BN * z0_BN).sum(0))
        return cls(*(part.cpu().numpy() for part in sums))

    def merge(self, other: PositionNorms) -> PositionNorms:
        """The state of both streams, as long as the longer; pure."""
        size = max(len(self.images), len(other.images))

        def added(one: Floats, two: Floats) -> Floats:
            both: Floats = np.pad(one, (0, size - len(one))) + np.pad(two, (0, size - len(two)))
            return both

        return PositionNorms(
            added(self.images, other.images),
            added(self.encoding, other.encoding),
            added(self.embedding, other.embedding),
        )

    def dominance(self) -> Floats:
        """(N,) ‖PE‖₂ / mean ‖z₀‖₂ at each position; NaN where no image had a token."""
        return np.divide(
            self.encoding, self.embedding, out=np.full_like(self.encoding, np.nan), where=self.embedding > 0
        )

    def arrays(self) -> dict[str, Floats]:
        """Everything the state holds, as named arrays."""
        return {"images": self.images, "encoding": self.encoding, "embedding": self.embedding}


def dominance(means: Mapping[str, Floats]) -> Floats:
    """PE dominance = mean ‖PE‖₂ / mean ‖z₀‖₂ over positions and images."""
    return means["position_norm"] / means["embedding_norm"]


def _needs_learned_positions(facts: Facts) -> str | None:
    if facts.position_kind == "learned":
        return None
    if facts.position_kind == "none":
        return "the model has no positional encoding"
    return f"the positional encoding is {facts.position_kind}: nothing is added to the embeddings"


PE_DOMINANCE = ImageProbe(
    "pe_dominance",
    "length of the positional encoding over that of the embeddings it is added to",
    position_norms,
    ("position_norm", "embedding_norm"),
    dominance,
    _needs_learned_positions,
)
