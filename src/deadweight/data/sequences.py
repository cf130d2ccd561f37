"""A text as sequences of tokens, spread over all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deadweight.errors import SourceError


def token_sequences(name: str, text: Tensor, tokenizer: Any, number: int, length: int) -> Tensor:
    """(at most `number`, `length`) token ids of `text`, bytes as :func:`load_text` gives them.

    The text is cut into as many parts as sequences are wanted, and each gives its beginning, so that only as much is
    tokenised as is used. Raises :class:`SourceError` for fewer than four.
    """
    raw = bytes(text.numpy()).decode("utf-8", "replace")
    step = max(1, len(raw) // number)
    found: list[list[int]] = []
    for start in range(0, len(raw), step):
        ids = tokenizer(raw[start : start + min(step, 16 * length)], add_special_tokens=False).input_ids
        if len(ids) >= length:
            found.append(list(ids[:length]))
    if len(found) < 4:
        raise SourceError(
            f"{name!r} holds {len(found)} sequences of {length} tokens in {number} parts",
            expected="at least 4",
            cure="give more text, or ask for fewer or shorter sequences",
        )
    return torch.tensor(found[:number], dtype=torch.long)
