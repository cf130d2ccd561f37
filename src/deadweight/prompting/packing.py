"""A trie of tokens through a causal language model, every node computed once.

The nodes run in depth-first order, a pack of consecutive ones at a time in a single row, each seeing its own ancestors
through an explicit mask. Whatever a pack sees outside itself lies on the path from the root to its first node, so
the keys and values of that one path are all that is kept between packs: memory is bounded by the longest sequence
and the pack, never by the number of prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from deadweight.prompting.blocks import attending, blocks_of, can_attend, forget, stand_in
from deadweight.prompting.lengths import Windows, text_config, windows
from deadweight.prompting.memory import PackBudget
from deadweight.prompting.plain import input_weight, plain_log_probs
from deadweight.prompting.trie import Ints, Trie, build_trie

How = Literal["blocks", "masks", "plain"]


def log_probs(
    model: Any,
    trie: Trie,
    nodes: Ints,
    targets: Ints,
    budget: PackBudget,
    reach: Windows,
    how: How,
    best: Tensor | None = None,
) -> Tensor:
    """Natural log-probability of ``targets[i]`` as the token after ``nodes[i]``: float32, CPU, [len(nodes)].

    Parameters
    ----------
    model:
        A causal language model of transformers, in evaluation mode, that takes a 4-D additive mask, position ids
        and a cache (:func:`packs` says whether it does, and how it attends).
    budget:
        What one pass may hold.
    best:
        Where given, bool [len(nodes)]: filled with whether each target is the likeliest token of all.
    """
    result = torch.empty(len(nodes))
    order = np.argsort(nodes, kind="stable")
    context: AbstractContextManager[None] = attending(model) if how == "blocks" else nullcontext()
    with context:
        for logits_RV, rows in _forward(model, trie, np.unique(nodes), budget, reach, how == "blocks"):
            low, high = np.searchsorted(nodes[order], [rows[0], rows[-1] + 1])
            here = order[low:high]
            row = torch.from_numpy(np.searchsorted(rows, nodes[here])).to(logits_RV.device)
            target = torch.from_numpy(targets[here]).to(logits_RV.device)
            chosen = logits_RV[row, target] - torch.logsumexp(logits_RV, dim=-1)[row]
            result[torch.from_numpy(here)] = chosen.cpu()
            if best is not None:
                best[torch.from_numpy(here)] = (logits_RV.argmax(dim=-1)[row] == target).cpu()
    return result


def _forward(
    model: Any, trie: Trie, answers: Ints, budget: PackBudget, reach: Windows, in_blocks: bool
) -> Iterator[tuple[Tensor, Ints]]:
    """Run the trie; yields float32 logits [rows, vocabulary] and the rows' nodes, for every pass that has any."""
    from transformers import DynamicCache

    weight = input_weight(model)
    device = weight.device
    selective = "logits_to_keep" in inspect.signature(model.forward).parameters
    cuts = budget.cuts(len(trie), answers)
    cache = DynamicCache() if len(cuts) > 1 else None
    keys = np.empty(0, dtype=np.int64)
    for first, stop in cuts:
        queries = np.arange(first, stop)
        keys = np.concatenate([keys, queries])
        rows = answers[np.searchsorted(answers, first) : np.searchsorted(answers, stop)]
        # A pack without answers still needs one row, because zero would mean all of them.
        kept = torch.from_numpy(rows - first if len(rows) else np.zeros(1, dtype=np.int64)).to(device)
        output = model(
            input_ids=torch.from_numpy(trie.token[queries])[None].to(device),
            position_ids=torch.from_numpy(trie.depth[queries])[None].to(device),
            attention_mask=_masks(trie, queries, keys, reach, weight, in_blocks),
            past_key_values=cache,
            use_cache=cache is not None,
            **({"logits_to_keep": kept} if selective else {}),
        )
        forget()
        logits_TV = output.logits[0] if selective else output.logits[0, kept]
        if len(rows):
            yield logits_TV.float(), rows
        if stop < len(trie):
            stays = np.flatnonzero(trie.end[keys] > stop)
            keys = keys[stays]
            _keep(cache, torch.from_numpy(stays).to(device))


def _masks(
    trie: Trie, queries: Ints, keys: Ints, reach: Windows, weight: Tensor, in_blocks: bool
) -> Tensor | dict[str, Tensor]:
    """Additive masks [1, 1, queries, keys], one for each kind of layer: what both eager and sdpa attention take."""
    made = {}
    for kind, window in reach.by_kind.items():
        if in_blocks:
            blocks = blocks_of(trie, queries, keys, window, weight.dtype)
            made[kind] = stand_in(blocks, len(queries), len(keys), weight.dtype)
        else:
            hidden = ~torch.from_numpy(trie.visible(queries, keys, window)).to(weight.device)
            mask_QK = torch.zeros(hidden.shape, dtype=weight.dtype, device=weight.device)
            made[kind] = mask_QK.masked_fill_(hidden, torch.finfo(weight.dtype).min)[None, None]
    return made.get("", made)


def _keep(cache: Any, positions: Tensor) -> None:
    for layer in cache.layers:
        layer.keys = layer.keys.index_select(-2, positions)
        layer.values = layer.values.index_select(-2, positions)


_verified: WeakKeyDictionary[Any, tuple[object, How]] = WeakKeyDictionary()


def packs(model: Any, reach: Windows | None) -> How:
    """How the model scores a packed trie as it scores plain sequences: tried on three short ones, once per model.

    No list of families could answer this: what counts is whether this model, with the attention it now has, heeds
    the mask, the positions and the cache it is given.
    """
    made_of = (
        getattr(model.config, "_attn_implementation", None),
        tuple(type(module) for module in model.modules()),
    )
    known = _verified.get(model)
    if known is None or known[0] != made_of:
        known = (made_of, _first_that_agrees(model, reach))
        _verified[model] = known
    return known[1]


def _first_that_agrees(model: Any, reach: Windows | None) -> How:
    if reach is None:
        return "plain"
    ways: tuple[How, ...] = ("blocks", "masks") if can_attend(model) else ("masks",)
    return next((how for how in ways if _same_packed_and_plain(model, reach, how)), "plain")


def _same_packed_and_plain(model: Any, reach: Windows, how: How) -> bool:
    """Three sequences that part after a while, so that in the row the later ones lie far from what they share.

    They end alike, so that their answers differ by what came before alone; being off by a thousandth of that is being
    wrong, however little a model attends.
    """
    size = _vocabulary(model)
    ids = [int(i) for i in (np.arange(1, 32) * 7919) % size]
    sequences = [[*ids[:8], *ids[8:18], ids[0]], [*ids[:8], *ids[18:28], ids[0]], [*ids[:3], *ids[28:31], ids[0]]]
    trie, paths = build_trie(sequences, [0, 0, 0])
    targets = [(n * 104729 + 1) % size for n in range(4)]
    last = np.asarray([path[-1] for path in paths]).repeat(len(targets))
    try:
        packed = log_probs(model, trie, last, np.asarray(targets * 3), PackBudget(12, 12), reach, how)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError):
        return False  # it does not take the arguments at all, which is an answer too
    asked = [[(len(one) - 1, [target]) for target in targets] for one in sequences]
    plain = torch.stack(
        [
            torch.cat([score for score, _ in plain_log_probs(model, [one], [want])[0]])
            for one, want in zip(sequences, asked, strict=True)
        ]
    )
    rounding = 20 * torch.finfo(input_weight(model).dtype).eps * (1 + float(plain.abs().max()))
    context = float((plain.amax(0) - plain.amin(0)).max())
    worst = 1e-2 if input_weight(model).dtype in (torch.float32, torch.float64) else 0.25
    return bool(torch.allclose(packed.view(3, -1), plain, rtol=0, atol=min(worst, max(rounding, context / 1000))))


def _vocabulary(model: Any) -> int:
    return int(getattr(text_config(model.config), "vocab_size", None) or len(input_weight(model)))


__all__ = ["How", "Windows", "log_probs", "packs", "windows"]
