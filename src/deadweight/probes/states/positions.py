"""Lengths of the positional encoding and of what it is added to, position by position."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from deadweight.probes.layer import Layer
from deadweight.probes.packed_symmetric import Floats


def lengths_of(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """(N,) ‖PE‖₂ and (B, N) ‖z₀‖₂, z₀ the embedding before PE, in float64; None but at row 0 of a learned encoding."""
    if layer.positions is None or layer.embeddings is None:
        return None
    pe_N = torch.linalg.vector_norm(layer.positions, dim=-1).double()
    return pe_N, torch.linalg.vector_norm(layer.embeddings, dim=-1).double()


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
        lengths = lengths_of(layer)
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
