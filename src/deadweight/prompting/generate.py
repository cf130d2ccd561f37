"""Greedy generation as a decoding: the model writes, and what it wrote is read as a label or counted as invalid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from deadweight.errors import InputError
from deadweight.prompting.alignment import INVALID

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel

BATCH = 16


class Generator(Protocol):
    """Whatever continues prompts: a model in this process, or a server."""

    name: str

    def generate(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The greedy continuation of each prompt, in their order."""
        ...


def parse_label(text: str, words: Sequence[str]) -> int:
    """The number of the label word a reply begins with, case aside; :data:`INVALID` when it begins with none.

    The word must end where the word ends: ``nobody`` is not ``no``. Of words that begin alike the longest counts.
    """
    reply = text.strip().casefold()
    found = [
        (len(word), number)
        for number, word in enumerate(one.strip().casefold() for one in words)
        if re.match(rf"{re.escape(word)}(?!\w)", reply)
    ]
    return max(found)[1] if found else INVALID


class LocalGenerator:
    """A model of :func:`deadweight.load_lm`, prompts of like length together, padded on the left."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.name = lm.name

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """Raises :class:`InputError`, before anything is computed, for a prompt that leaves no room to write."""
        tokenizer = self.lm.tokenizer
        rows = [list(tokenizer(prompt, verbose=False)["input_ids"]) for prompt in prompts]
        longest = max(map(len, rows), default=0)
        if longest + max_tokens > self.lm.max_length:
            raise InputError(
                f"a prompt of {longest} tokens", expected=f"at most {self.lm.max_length - max_tokens}",
                cure="use fewer demonstrations, or too_long: drop",
            )  # fmt: skip
        if empty := [number for number, row in enumerate(rows) if not row]:
            raise InputError(f"prompt {empty[0]} has no tokens", expected="some text to continue")
        replies = [""] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            for number, text in zip(batch, self._continue([rows[one] for one in batch], max_tokens), strict=True):
                replies[number] = text
        return replies

    def _continue(self, rows: list[list[int]], max_tokens: int) -> list[str]:
        model, tokenizer = self.lm.model, self.lm.tokenizer
        device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        heeded = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        written = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=heeded, max_new_tokens=max_tokens, do_sample=False, num_beams=1,
            temperature=None, top_p=None, top_k=None, pad_token_id=pad,
        )  # fmt: skip
        return [tokenizer.decode(row, skip_special_tokens=True) for row in written[:, width:]]
