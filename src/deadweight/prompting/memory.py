"""How much of a trie one pass may take, so that memory is bounded whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deadweight.errors import InputError
from deadweight.prompting.blocks import BLOCK
from deadweight.prompting.lengths import text_config
from deadweight.prompting.plain import input_weight
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
    sizes = _sizes(model)
    cached = 2 * 2 * sizes.layers * sizes.cached * sizes.bytes
    beside = LARGEST_PACK if whole_masks else BLOCK
    token = cached + sizes.bytes * (8 * sizes.hidden + 3 * sizes.inner + 2 * longest + beside)
    answer = 12 * sizes.vocabulary
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


def within(budget: PackBudget, row: int | None, longest: int) -> PackBudget | None:
    """A budget whose packs, with the path that is kept beside them, stay within a row of so many tokens.

    None where no pack worth its while fits beside the longest sequence.
    """
    if row is None or budget.tokens + longest <= row:
        return budget
    return PackBudget(row - longest, budget.answers) if row - longest >= SMALLEST_PACK else None


def plain_budget(model: Any, memory: int | None) -> tuple[int, int]:
    """Bytes that a token of an ordinary pass takes, with its logits and its row of scores, and those there are."""
    sizes = _sizes(model)
    token = sizes.bytes * (16 * sizes.hidden + 4 * sizes.inner) + 12 * sizes.vocabulary
    return token, DEFAULT_MEMORY if memory is None else memory


@dataclass(frozen=True)
class _Sizes:
    """Of a model in numbers: what a layer caches is as wide as its keys."""

    layers: int
    hidden: int
    inner: int
    cached: int
    vocabulary: int
    bytes: int


def _sizes(model: Any) -> _Sizes:
    config, weight = text_config(model.config), input_weight(model)
    hidden = _largest(config, "hidden_size") or int(weight.shape[-1])
    heads = _largest(config, "num_attention_heads")
    width = max(_largest(config, "head_dim"), _largest(config, "global_head_dim")) or (hidden // heads if heads else 0)
    cached = width * (_largest(config, "num_key_value_heads") or heads) if heads else hidden
    return _Sizes(
        layers=_largest(config, "num_hidden_layers") or 1,
        hidden=hidden,
        inner=_largest(config, "intermediate_size") or 4 * hidden,
        cached=cached,
        vocabulary=_largest(config, "vocab_size") or len(weight),
        bytes=weight.element_size(),
    )


def _largest(config: Any, name: str) -> int:
    """A number of a configuration, the largest where each layer has its own; 0 where there is none."""
    try:
        value = getattr(config, name, None)
    except Exception:  # a configuration that tells such numbers layer by layer, and says so in an error of its own
        value = [getattr(one, name, None) for one in _by_layer(config)]
    numbers = value if isinstance(value, list | tuple) else [value]
    return max((one for one in numbers if isinstance(one, int)), default=0)


def _by_layer(config: Any) -> list[Any]:
    layers = getattr(config, "per_layer_config", None) or []
    return list(layers.values() if isinstance(layers, dict) else layers)
