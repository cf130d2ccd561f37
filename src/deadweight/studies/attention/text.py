"""A text cut by a model's tokenizer instead of into bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deadweight.data import TextData
from deadweight.data.images import digest
from deadweight.errors import InputError
from deadweight.loading import load_tokenizer

PIECE = 100_000  # characters cut at a time, up to the next end of a line


def cut(text: TextData, tokenizer: str) -> TextData:
    """`text` in the tokens of the tokenizer of the language model `tokenizer` (a source string).

    Bytes that are no UTF-8 become the replacement character. The fingerprint covers text and tokens.
    Raises :class:`SourceError` where there is no such tokenizer, :class:`InputError` for fewer than two kinds of token.
    """
    cutter, _ = load_tokenizer(tokenizer)
    train, validation = _tokens(text.train, cutter), _tokens(text.validation, cutter)
    vocabulary = len(cutter)
    if vocabulary < 2 or not len(train) or not len(validation):
        raise InputError(
            f"tokenizer {tokenizer!r}: {len(train):,} tokens of {vocabulary} kinds",
            expected="text it can cut",
            cure="leave the tokenizer out: then a token is a byte",
        )
    mark = digest([text.fingerprint.encode(), train.numpy().tobytes(), validation.numpy().tobytes()])
    return replace(text, train=train, validation=validation, vocabulary=vocabulary, fingerprint=mark)


def _tokens(data: Tensor, cutter: Any) -> Tensor:
    said = data.numpy().tobytes().decode("utf-8", errors="replace")
    pieces, start = [], 0
    while start < len(said):
        end = said.find("\n", start + PIECE)
        end = len(said) if end < 0 else end + 1
        pieces.append(said[start:end])
        start = end
    cuts = cutter(pieces, add_special_tokens=False, verbose=False)["input_ids"] if pieces else []
    return torch.tensor([token for piece in cuts for token in piece], dtype=torch.int32)
