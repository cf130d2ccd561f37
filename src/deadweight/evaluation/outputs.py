"""Where the logits are in what a model returns."""

from __future__ import annotations

from torch import Tensor


def logits_of(output: object) -> Tensor:
    """The logits: a tensor as it is, ``.logits`` of a Hugging Face output, the first of a tuple or list.

    Raises TypeError for anything else, such as the output of a model without a head.

    >>> import torch
    >>> logits_of((torch.zeros(2, 3), None)).shape
    torch.Size([2, 3])
    """
    found = getattr(output, "logits", output)
    while isinstance(found, (tuple, list)) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise TypeError(f"a model returned {type(output).__name__}, expected logits")
    return found


__all__ = ["logits_of"]
