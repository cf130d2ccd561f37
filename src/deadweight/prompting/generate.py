"""Greedy generation as a decoding: the model writes, and what it wrote is read as a label or counted as invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from deadweight.errors import InputError
from deadweight.prompting.alignment import INVALID
from deadweight.prompting.encoding import prompt_ids
from deadweight.prompting.plain import input_weight

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel

BATCH = 16
Company = Literal["padded", "equal", "alone"]


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
    """A model of :func:`deadweight.load_lm`, prompts of like length together, padded on the left.

    Of the model's generation settings only its special tokens count: the answer is the likeliest continuation.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.name = lm.name
        self._how: Company | None = None

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """Raises :class:`InputError`, before anything is computed, for a prompt that leaves no room to write."""
        rows = prompt_ids(self.lm.tokenizer, prompts)
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
        with _greedy(self.lm.model):
            for batch in self._batches(rows, order):
                found = self._continue([rows[one] for one in batch], max_tokens)
                for number, text in zip(batch, found, strict=True):
                    replies[number] = text
        return replies

    def _batches(self, rows: list[list[int]], order: list[int]) -> Iterator[list[int]]:
        """Prompts that share a pass: of like length where padding changes nothing, of the same, or each alone."""
        how = self._company() if len(rows) > 1 else "alone"
        groups = [order]
        if how != "padded":
            groups = [list(group) for _, group in groupby(order, key=lambda number: len(rows[number]))]
        size = 1 if how == "alone" else BATCH
        for group in groups:
            for first in range(0, len(group), size):
                yield group[first : first + size]

    def _company(self) -> Company:
        """In which company a prompt is continued as by itself: tried once, on tokens of no meaning."""
        if self._how is None:
            self._how = self._tried()
        return self._how

    def _tried(self) -> Company:
        size = self.lm.model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
        ids = [int(i) for i in np.arange(1, 25) * 7919 % size]
        short, other, long = ids[:7], ids[7:14], ids[7:]
        alone = self._logits([short])
        spread = float((self._logits([other])[0] - alone[0]).abs().max())  # how much tokens matter at all
        rounding = 20 * torch.finfo(alone.dtype).eps * (1 + float(alone.abs().max()))
        tries: tuple[tuple[Company, list[int]], ...] = (("padded", long), ("equal", other))
        for how, neighbour in tries:
            off = float((self._logits([short, neighbour])[0] - alone[0]).abs().max())
            if off <= max(rounding, spread / 100):
                return how
        return "alone"

    def _logits(self, rows: list[list[int]]) -> torch.Tensor:
        """After each prompt and one token more, as generation computes them. [rows, 2 * vocabulary]"""
        told = self._written(rows, 2, output_logits=True, return_dict_in_generate=True, eos_token_id=None)
        return torch.cat(told.logits, dim=-1)

    def _continue(self, rows: list[list[int]], max_tokens: int) -> list[str]:
        written = self._written(rows, max_tokens)
        width = max(map(len, rows))
        return [self.lm.tokenizer.decode(row, skip_special_tokens=True) for row in written[:, width:]]

    def _written(self, rows: list[list[int]], max_tokens: int, **options: Any) -> Any:
        model, tokenizer = self.lm.model, self.lm.tokenizer
        device = input_weight(model).device
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        heeded = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        return model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=heeded, max_new_tokens=max_tokens, do_sample=False, num_beams=1,
            pad_token_id=pad, **options,
        )  # fmt: skip


@contextmanager
def _greedy(model: Any) -> Iterator[None]:
    """The likeliest token each time: without the penalties, bans and forced tokens that a model may bring along.

    Only the tokens that begin and end a text are kept of the model's own generation settings.
    """
    own = model.generation_config
    ends = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "decoder_start_token_id")}
    model.generation_config = type(own)(**ends)
    try:
        yield
    finally:
        model.generation_config = own
