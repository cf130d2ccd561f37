"""A trie of tokens through a causal language model, every node computed once.

The nodes run in depth-first order, a pack of consecutive ones at a time in a single row, each seeing its own ancestors
through an explicit mask. Whatever a pack sees outside itself lies on the path from the root to its first node, so
the keys and values of that one path are all that is kept between packs: memory is bounded by the longest sequence
and the pack, never by the number of prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from deadweight.errors import InputError
from deadweight.prompting.trie import Ints, Trie, build_trie

# Beyond this many tokens a pack gains nothing from larger matrices and loses to masked-out attention.
LARGEST_PACK = 512
DEFAULT_MEMORY = 1 << 30


@dataclass(frozen=True)
class Windows:
    """How far attention reaches: for each kind of layer its sliding window, None for all of the context.

    `by_kind` is keyed by the names in the configuration's ``layer_types``; a model with a single kind of layer has
    the key ``""``.
    """

    by_kind: dict[str, int | None]


def windows(config: Any) -> Windows | None:
    """The attention windows a configuration declares; None when a layer is no plain or sliding attention."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    window = getattr(config, "sliding_window", None)
    kinds = sorted(set(getattr(config, "layer_types", None) or []))
    if not kinds:
        return Windows({"": window})
    reach = {"full_attention": None, "sliding_attention": window}
    if any(kind not in reach for kind in kinds):
        return None
    return Windows({kind: reach[kind] for kind in kinds} if len(kinds) > 1 else {"": reach[kinds[0]]})


def log_probs(model: Any, trie: Trie, nodes: Ints, targets: Ints, pack: int, reach: Windows) -> Tensor:
    """Natural log-probability of ``targets[i]`` as the token after ``nodes[i]``: float32, CPU, [len(nodes)].

    Parameters
    ----------
    model:
        A causal language model of transformers, in evaluation mode, that takes a 4-D additive mask, position ids
        and a cache (:func:`packs` says whether it does).
    pack:
        The largest number of tokens computed in one pass.
    """
    result = torch.empty(len(nodes))
    order = np.argsort(nodes, kind="stable")
    for first, logits_RV, rows in _forward(model, trie, np.unique(nodes), pack, reach):
        low, high = np.searchsorted(nodes[order], [first, rows[-1] + 1]) if len(rows) else (0, 0)
        here = order[low:high]
        if not len(here):
            continue
        row = torch.from_numpy(np.searchsorted(rows, nodes[here]))
        target = torch.from_numpy(targets[here]).to(logits_RV.device)
        row = row.to(logits_RV.device)
        chosen = logits_RV[row, target] - torch.logsumexp(logits_RV, dim=-1)[row]
        result[torch.from_numpy(here)] = chosen.cpu()
    return result


def _forward(model: Any, trie: Trie, answers: Ints, pack: int, reach: Windows) -> Iterator[tuple[int, Tensor, Ints]]:
    """Run the trie; yields (first node of the pack, float32 logits [rows, vocabulary], the rows' nodes)."""
    from transformers import DynamicCache

    device = model.get_input_embeddings().weight.device
    dtype = model.get_input_embeddings().weight.dtype
    selective = "logits_to_keep" in inspect.signature(model.forward).parameters
    cache = DynamicCache()
    keys = np.empty(0, dtype=np.int64)
    for first in range(0, len(trie), pack):
        stop = min(first + pack, len(trie))
        queries = np.arange(first, stop)
        keys = np.concatenate([keys, queries])
        rows = answers[np.searchsorted(answers, first) : np.searchsorted(answers, stop)]
        # A pack without answers still needs one row, because zero would mean all of them.
        kept = torch.from_numpy(rows - first if len(rows) else np.zeros(1, dtype=np.int64)).to(device)
        output = model(
            input_ids=torch.from_numpy(trie.token[queries])[None].to(device),
            position_ids=torch.from_numpy(trie.depth[queries])[None].to(device),
            attention_mask=_masks(trie, queries, keys, reach, dtype, device),
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": kept} if selective else {}),
        )
        logits_TV = output.logits[0] if selective else output.logits[0, kept]
        if len(rows):
            yield first, logits_TV.float(), rows
        if stop < len(trie):
            stays = np.flatnonzero(trie.end[keys] > stop)
            keys = keys[stays]
            _keep(cache, torch.from_numpy(stays).to(device))


def _masks(
    trie: Trie, queries: Ints, keys: Ints, reach: Windows, dtype: torch.dtype, device: torch.device
) -> Tensor | dict[str, Tensor]:
    """Additive masks [1, 1, queries, keys], one for each kind of layer: what both eager and sdpa attention take."""
    made = {}
    for kind, window in reach.by_kind.items():
        hidden = ~torch.from_numpy(trie.visible(queries, keys, window)).to(device)
        mask_QK = torch.zeros(hidden.shape, dtype=dtype, device=device)
        made[kind] = mask_QK.masked_fill_(hidden, torch.finfo(dtype).min)[None, None]
    return made.get("", made)


def _keep(cache: Any, positions: Tensor) -> None:
    for layer in cache.layers:
        layer.keys = layer.keys.index_select(-2, positions)
        layer.values = layer.values.index_select(-2, positions)


def pack_size(model: Any, longest: int, memory: int | None) -> int:
    """How many tokens one pass may hold within `memory` bytes beside the weights.

    Counted for a token: its keys and values (twice, for the growing cache), the activations of one block, its row
    of the mask, and its row of logits. Raises :class:`InputError` when not even 16 tokens fit beside the longest
    sequence.
    """
    budget = DEFAULT_MEMORY if memory is None else memory
    config = model.config.get_text_config()
    bytes_each = model.get_input_embeddings().weight.element_size()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * 2 * config.num_hidden_layers * head_dim * bytes_each
    cached *= getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    active = bytes_each * (8 * config.hidden_size + 3 * inner + 2 * longest) + 8 * config.vocab_size
    size = (budget - cached * longest) // (cached + active + bytes_each * LARGEST_PACK)
    if size < 16:
        need = cached * longest + 16 * (cached + active + bytes_each * LARGEST_PACK)
        raise InputError(
            f"a memory budget of {budget:,} bytes",
            expected=f"at least {need:,} for sequences of {longest} tokens",
            cure="raise memory=, or use fewer demonstrations",
        )
    return int(min(size, LARGEST_PACK))


_verified: WeakKeyDictionary[Any, tuple[object, bool]] = WeakKeyDictionary()


def packs(model: Any, reach: Windows) -> bool:
    """Whether the model scores a packed trie as it scores plain sequences: tried on three tiny ones, once a model.

    No list of families could answer this: what counts is whether this model, with the attention it now has, heeds
    the mask, the positions and the cache it is given.
    """
    made_of = (
        getattr(model.config, "_attn_implementation", None),
        tuple(type(module) for module in model.modules()),
    )
    known = _verified.get(model)
    if known is None or known[0] != made_of:
        known = (made_of, _same_packed_and_plain(model, reach))
        _verified[model] = known
    return known[1]


def _same_packed_and_plain(model: Any, reach: Windows) -> bool:
    size = model.get_input_embeddings().num_embeddings
    ids = [int(i) for i in (np.arange(1, 12) * 7919) % size]
    sequences = [ids[:7], [*ids[:3], *ids[7:10]], [*ids[:1], *ids[9:11]]]
    trie, paths = build_trie(sequences, [0, 0, 0])
    last = np.asarray([path[-1] for path in paths])
    tolerance = 1e-2 if model.get_input_embeddings().weight.dtype == torch.float32 else 0.25
    targets = np.arange(3) % size
    try:
        packed = log_probs(model, trie, last, targets, 5, reach)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
        return False  # it does not take the arguments at all, which is an answer too
    plain = [plain_log_probs(model, s, len(s) - 1, [int(t)]) for s, t in zip(sequences, targets, strict=True)]
    return bool(torch.allclose(packed, torch.cat(plain), rtol=0, atol=tolerance))


def plain_log_probs(model: Any, tokens: list[int], start: int, targets: list[int]) -> Tensor:
    """One sequence, one ordinary forward pass: log-probabilities of `targets` after positions start, start + 1, …"""
    device = model.get_input_embeddings().weight.device
    logits_TV = model(input_ids=torch.tensor([tokens], device=device), use_cache=False).logits[0, start:].float()
    chosen = torch.log_softmax(logits_TV, dim=-1)[torch.arange(len(targets)), torch.tensor(targets)]
    return chosen.cpu()
