"""How well a causal language model predicts text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.evaluation.outputs import logits_of


def nats_per_token(model: nn.Module, ids: Tensor, size: int = 8) -> list[float]:
    """Mean loss of each sequence, in nats per token, each token predicted from those before it.

    Parameters
    ----------
    model:
        A causal model that takes (batch, tokens) ids.
    ids:
        (sequences, tokens) int64, at least two tokens each.
    size:
        Sequences in a forward pass.

    Returns
    -------
    list of float
        (sequences,) natural logarithms, in float32 whatever the model computes in.

    Examples
    --------
    >>> guess = nn.Embedding.from_pretrained(torch.zeros(256, 256))  # every next token is as likely as any
    >>> [round(loss, 4) for loss in nats_per_token(guess, torch.zeros(1, 5, dtype=torch.long))]  # log 256
    [5.5452]
    """
    device, losses = next(model.parameters()).device, list[float]()
    with torch.inference_mode():
        for part in torch.split(ids, size):
            logits_BTV = logits_of(model(part.to(device)))[:, :-1].float()
            targets_BT = part[:, 1:].to(device)
            each = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
            losses += each.view(targets_BT.shape).mean(1).tolist()
    return losses


__all__ = ["nats_per_token"]
