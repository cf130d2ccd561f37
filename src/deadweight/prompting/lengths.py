"""What of a model's arithmetic depends on how long a call is: windows, and rotary frequencies chosen by length.

A pack is one long row of many short sequences. Where the model reads off the row what it should read off each
sequence, packing is wrong without a word, so what a configuration says about lengths decides before any trial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Rotary frequencies that are fixed once the model is built, whatever the length of a call.
_FIXED_ROPE = frozenset({"default", "linear", "llama3", "yarn", "proportional", "mrope"})
_BY_LENGTH = ("use_dynamic_ntk", "use_logn_attn")
# How configurations call a reach in tokens, besides `sliding_window`; a layer's number or a pattern is none.
_REACH = re.compile(r"window|local_att|attention_chunk|attn_chunk|attention_span|block_size")
_NO_REACH = re.compile(r"layer|pattern|use_|feed_forward|^sliding_window$|type|vision|audio|patch")


@dataclass(frozen=True)
class Windows:
    """How far attention reaches: for each kind of layer its sliding window, None for all of the context.

    `by_kind` is keyed by the names in the configuration's ``layer_types``; a model with a single kind of layer has
    the key ``""``.
    """

    by_kind: dict[str, int | None]


def text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def windows(config: Any) -> Windows | None:
    """The attention windows a configuration declares; None when a layer is no plain or sliding attention."""
    config = text_config(config)
    window = getattr(config, "sliding_window", None)
    kinds = sorted(set(getattr(config, "layer_types", None) or []))
    if not kinds:
        return Windows({"": window})
    reach = {"full_attention": None, "sliding_attention": window}
    if any(kind not in reach for kind in kinds):
        return None
    return Windows({kind: reach[kind] for kind in kinds} if len(kinds) > 1 else {"": reach[kinds[0]]})


def row_limit(config: Any) -> int | None:
    """The longest row in which no reach that the configuration names in other words can hide anything; None: any.

    >>> from transformers import GPTNeoConfig, LlamaConfig
    >>> row_limit(GPTNeoConfig(window_size=256)), row_limit(LlamaConfig())
    (256, None)
    """
    config = text_config(config)
    declared = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    found = [
        number
        for name, value in declared.items()
        if _REACH.search(name) and not _NO_REACH.search(name)
        for number in _numbers(value)
    ]
    return min(found, default=None)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)


def same_up_to(config: Any) -> int | None:
    """How long a call may be for its positions to be encoded as in any shorter one; None: always; 0: never known.

    >>> from transformers import LlamaConfig
    >>> scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    >>> same_up_to(LlamaConfig(rope_parameters=scaled, max_position_embeddings=64)), same_up_to(LlamaConfig())
    (64, None)
    """
    config = text_config(config)
    if any(getattr(config, name, None) for name in _BY_LENGTH):
        return 0
    limits = []
    for rope in _ropes(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind in _FIXED_ROPE:
            continue
        trained = getattr(config, "max_position_embeddings", None)
        if kind == "longrope":
            trained = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", trained
            )
        limits.append(int(trained) if kind in ("longrope", "dynamic") and trained else 0)
    return min(limits, default=None)


def _ropes(declared: Any) -> Iterator[dict[str, Any]]:
    """One rotary encoding, or one per kind of layer."""
    if not isinstance(declared, dict):
        return
    inner = [one for one in declared.values() if isinstance(one, dict)]
    if inner:
        yield from inner
    else:
        yield declared
