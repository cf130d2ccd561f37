"""A text as sequences of tokens, spread over all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deadweight.errors import SourceError


def token_sequences(
    name: str, text: Tensor, tokenizer: Any, number: int, length: int, *, seed: int | None = None
) -> Tensor:
    """Sequences of token ids from all over a text, so that no two of them are neighbours.

    The text is cut into as many parts as sequences are wanted, and each gives one: its beginning, or with a `seed` the
    tokens from a place drawn in it. Only as much is tokenised as is used.

    Parameters
    ----------
    name:
        Of the text, for errors.
    text:
        (bytes,) uint8, as :func:`deadweight.load_text` gives it.
    tokenizer:
        Hugging Face's, called without special tokens.

    Returns
    -------
    Tensor
        (at most `number`, `length`) int64.

    Raises
    ------
    SourceError
        Fewer than four sequences are to be had.
    """
    raw = bytes(text.numpy()).decode("utf-8", "replace")
    step = max(1, len(raw) // number)
    generator = None if seed is None else np.random.default_rng(seed)
    found: list[list[int]] = []
    for start in range(0, len(raw), step):
        spare = step - min(step, 16 * length) if generator is not None else 0
        place = start + (int(generator.integers(0, spare + 1)) if generator is not None else 0)
        ids = tokenizer(raw[place : place + min(step, 16 * length)], add_special_tokens=False).input_ids
        if len(ids) >= length:
            found.append(list(ids[:length]))
    if len(found) < 4:
        raise SourceError(
            f"{name!r} holds {len(found)} sequences of {length} tokens in {number} parts",
            expected="at least 4",
            cure="give more text, or ask for fewer or shorter sequences",
        )
    return torch.tensor(found[:number], dtype=torch.long)


__all__ = ["token_sequences"]
