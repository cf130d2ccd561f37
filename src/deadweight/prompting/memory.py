"""How much of a trie one pass may take, so that memory is bounded whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deadweight.errors import InputError
from deadweight.prompting.blocks import BLOCK
from deadweight.prompting.trie import Ints

# Beyond this many tokens a pass gains nothing from larger matrices.
LARGEST_PACK = 2048
DEFAULT_MEMORY = 1 << 30
SMALLEST_PACK = 16


@dataclass(frozen=True)
class PackBudget:
    """What one pass may hold: so many tokens, and logits after so many of them."""

    tokens: int
    answers: int

    def cuts(self, nodes: int, answers: Ints) -> list[tuple[int, int]]:
        """(first, stop) of the passes over all nodes; `answers` are those whose logits are read, ascending."""
        found, first = [], 0
        while first < nodes:
            stop = min(first + self.tokens, nodes)
            at = int(np.searchsorted(answers, first)) + self.answers
            if at < len(answers):
                stop = min(stop, int(answers[at]))
            found.append((first, stop))
            first = stop
        return found


def pack_budget(model: Any, longest: int, memory: int | None, whole_masks: bool) -> PackBudget:
    """What fits within `memory` bytes beside the weights.

    Counted for a token: its keys and values (twice, for the growing cache), the activations of one block, its row of
    the mask; and for an answer its row of logits, in the model's dtype, in float32, and once more while they are
    summed. A quarter is for logits. `longest` is the length of the longest sequence; `whole_masks` says that a pack
    sees a mask over all of itself and not block by block.

    Raises :class:`InputError` when not even 16 tokens fit beside the longest sequence.
    """
    budget = DEFAULT_MEMORY if memory is None else memory
    config = model.config.get_text_config()
    bytes_each = model.get_input_embeddings().weight.element_size()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * 2 * config.num_hidden_layers * head_dim * bytes_each
    cached *= getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    beside = LARGEST_PACK if whole_masks else BLOCK
    token = cached + bytes_each * (8 * config.hidden_size + 3 * inner + 2 * longest + beside)
    answer = 12 * config.vocab_size
    fixed = cached * longest
    tokens = (budget - fixed - max(budget // 4, answer)) // token
    if tokens < SMALLEST_PACK:
        need = max((fixed + SMALLEST_PACK * token) * 4 // 3, fixed + SMALLEST_PACK * token + answer) + 1
        raise InputError(
            f"a memory budget of {budget:,} bytes",
            expected=f"at least {need:,} for sequences of {longest} tokens",
            cure="raise memory=, or use fewer demonstrations",
        )
    return PackBudget(int(min(tokens, LARGEST_PACK)), max(1, budget // 4 // answer))
