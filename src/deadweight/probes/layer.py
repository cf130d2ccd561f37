"""The tokens at one row of a profile, and what several probes need of them, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deadweight.probes.scratch import Scratch

Labels = npt.NDArray[np.int64]

HEAD_INPUT = "head"


@dataclass(frozen=True, eq=False)
class Layer:
    """Tokens of a batch at one row, in float32 or float64.

    patches:    (B, N, D) patch tokens; for language models all tokens.
    cls:        (B, D) the CLS token, None where there is none.
    mask:       (B, N) which tokens count (padding does not); None when all do.
    embeddings: (B, N, D) row 0 only: the embeddings before the positional encoding.
    positions:  (N, D) row 0 only: the positional encoding of the same tokens.
    attention:  (B, T, T) rows of blocks: attention over all T tokens, heads averaged; None where it was not seen.
    scratch:    where `centred` is kept; None for memory of its own.
    """

    patches: Tensor
    cls: Tensor | None = None
    mask: Tensor | None = None
    embeddings: Tensor | None = None
    positions: Tensor | None = None
    attention: Tensor | None = None
    scratch: Scratch | None = None

    @cached_property
    def norms(self) -> Tensor:
        """(B, N) length of every token."""
        norms: Tensor = torch.linalg.vector_norm(self.patches, dim=-1)
        return norms

    @cached_property
    def inverse(self) -> Tensor:
        """(B, N) 1/length; 0 for zero vectors and masked tokens."""
        kept = self.norms > 0 if self.mask is None else (self.norms > 0) & self.mask
        return torch.where(kept, 1 / self.norms, 0.0)

    @cached_property
    def direction(self) -> Tensor:
        """(B, D) sum of the tokens' unit vectors, float64."""
        return torch.bmm(self.inverse[:, None], self.patches)[:, 0].double()

    @cached_property
    def mean(self) -> Tensor:
        """(B, D) mean patch token: the pooled feature."""
        return masked_mean(self.patches, self.mask)

    @cached_property
    def centred(self) -> Tensor:
        """(B, N, D) the patch tokens less their mean."""
        patches = self.patches
        if self.scratch is None:
            return patches - self.mean[:, None]
        room = self.scratch.empty("centred", tuple(patches.shape), patches.dtype, patches.device)
        return torch.sub(patches, self.mean[:, None], out=room)


def masked_mean(values: Tensor, mask_BN: Tensor | None) -> Tensor:
    """Mean over dimension 1 of (B, N) or (B, N, D), of the tokens the mask keeps."""
    if mask_BN is None:
        return values.mean(1)
    weights = mask_BN.to(values.dtype) / mask_BN.sum(1, keepdim=True)
    return torch.bmm(weights[:, None], values)[:, 0] if values.dim() == 3 else (weights * values).sum(1)
