"""How likely a causal language model finds each label after each prompt."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from deadweight.errors import InputError
from deadweight.prompting.encoding import Query, encode_queries, label_lists
from deadweight.prompting.lengths import row_limit, same_up_to, windows
from deadweight.prompting.memory import pack_budget, plain_budget, within
from deadweight.prompting.packing import log_probs, packs
from deadweight.prompting.plain import batched_log_probs, begin_anew
from deadweight.prompting.trie import build_trie

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel


def score_labels(
    lm: LanguageModel,
    prompts: Sequence[str],
    labels: Sequence[str] | Sequence[Sequence[str]],
    *,
    reduction: Literal["sum", "mean"] = "sum",
    memory: int | None = None,
) -> Tensor:
    """Log-likelihood of every label as the continuation of its prompt.

    Each distinct prefix of all prompts and labels is computed once: shared demonstrations, nested numbers of them
    and common openings of items cost what they cost one prompt. The figures equal plain forward passes to rounding.

    Parameters
    ----------
    lm:
        A language model of :func:`deadweight.load_lm`.
    prompts, labels:
        Strings, joined as given: no space or template is added, and no token beyond the tokenizer's default.
        `labels` is one list for all prompts, or one list a prompt (shorter lists are filled with -inf).
    reduction:
        ``"sum"`` over the label's tokens, or their ``"mean"``.
    memory:
        Bytes to use beside the weights; 1 GiB when not given.

    Returns
    -------
    Natural logarithms, float32 on the CPU, [prompts, labels].

    Raises
    ------
    InputError
        Before anything is computed: a label without tokens, two labels of a prompt with the same tokens, a prompt
        longer than the model's context, a budget too small, an unknown reduction.

    Examples
    --------
    >>> from deadweight.errors import InputError
    >>> try:
    ...     score_labels(None, ["a"], ["b"], reduction="product")
    ... except InputError as problem:
    ...     print("product" in problem.given)
    True
    """
    if reduction not in ("sum", "mean"):
        raise InputError(f"reduction {reduction!r}", expected="'sum' or 'mean'")
    sums, counts = label_scores(lm, prompts, labels, memory=memory)
    return sums if reduction == "sum" else sums / counts.clamp(min=1)


def label_scores(
    lm: LanguageModel,
    prompts: Sequence[str],
    labels: Sequence[str] | Sequence[Sequence[str]],
    *,
    memory: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The summed log-likelihood of every label, and how many tokens each has (0 where a list is filled up).

    float32 and int64, both [prompts, labels]; all else as :func:`score_labels`.
    """
    lists = label_lists(prompts, labels)
    sums = torch.full((len(lists), max(map(len, lists), default=0)), float("-inf"))
    counts = torch.zeros(sums.shape, dtype=torch.int64)
    queries = encode_queries(lm.tokenizer, prompts, lists, lm.max_length)
    scores, _ = token_scores(lm.model, queries, memory=memory)
    for query, parts in zip(queries, scores, strict=True):
        sums[query.prompt, query.label] = parts.sum()
        counts[query.prompt, query.label] = len(parts)
    return sums, counts


def distinct_tokens(lm: LanguageModel, prompts: Sequence[str], labels: Sequence[str] | Sequence[Sequence[str]]) -> int:
    """How many tokens :func:`score_labels` computes for these prompts: the distinct prefixes of all of them."""
    queries = encode_queries(lm.tokenizer, prompts, label_lists(prompts, labels), lm.max_length)
    return len(build_trie([query.tokens[:-1] for query in queries], [0] * len(queries))[0])


def token_scores(
    model: Any, queries: Sequence[Query], *, memory: int | None = None, greedy: bool = False
) -> tuple[list[Tensor], list[bool]]:
    """For queries that are tokens already: the log-probabilities of each answer's tokens, float32 on the CPU.

    With `greedy` also whether every token of the answer is the likeliest one; without, an empty list.
    """
    if not queries:
        return [], []
    best = torch.zeros(sum(len(query.tokens) - query.start for query in queries), dtype=torch.bool) if greedy else None
    flat, sizes = _flat_log_probs(model, queries, memory, best)
    all_best = [] if best is None else [bool(part.all()) for part in torch.split(best, sizes)]
    return list(torch.split(flat, sizes)), all_best


@torch.inference_mode()
def _flat_log_probs(
    model: Any, queries: Sequence[Query], memory: int | None, best: Tensor | None = None
) -> tuple[Tensor, list[int]]:
    """The log-probability of every label token of every query, one after another, and how many each has."""
    sizes = [len(query.tokens) - query.start for query in queries]
    longest = max(len(query.tokens) for query in queries)
    alike = same_up_to(model.config)
    packed = [number for number, query in enumerate(queries) if alike is None or len(query.tokens) - 1 <= alike]
    with _evaluating(model):
        pack_budget(model, longest, memory, whole_masks=False)  # refuses a budget too small before anything is computed
        if alike is not None:
            begin_anew(model)
        parts = [torch.empty(0)] * len(queries)
        marks = [torch.empty(0, dtype=torch.bool)] * len(queries)
        rest = set(range(len(queries)))
        if packed and _packed(model, queries, packed, memory, parts, marks if best is not None else None):
            rest -= set(packed)
        elif packed:
            warnings.warn(
                f"{type(model).__name__} does not take packed sequences; each prompt is computed by itself",
                stacklevel=3,
            )
        _one_by_one(model, queries, sorted(rest), memory, parts, marks)
    if best is not None:
        best.copy_(torch.cat(marks))
    return torch.cat(parts), sizes


def _packed(
    model: Any,
    queries: Sequence[Query],
    chosen: Sequence[int],
    memory: int | None,
    parts: list[Tensor],
    marks: list[Tensor] | None,
) -> bool:
    """Fill in the chosen scores from packs; False, with nothing filled in, where the model cannot be packed."""
    reach = windows(model.config)
    how = packs(model, reach)
    if reach is None or how == "plain":
        return False
    own = [queries[number] for number in chosen]
    longest = max(len(query.tokens) for query in own)
    space = within(pack_budget(model, longest, memory, whole_masks=how == "masks"), row_limit(model.config), longest)
    if space is None:
        return False
    targets = [query.tokens[query.start :] for query in own]
    # A label's last token predicts nothing we ask for, so it is never fed to the model.
    trie, nodes = build_trie([query.tokens[:-1] for query in own], [query.start - 1 for query in own])
    best = None if marks is None else torch.zeros(sum(map(len, targets)), dtype=torch.bool)
    flat = log_probs(model, trie, np.concatenate(nodes), np.concatenate(targets), space, reach, how, best)
    sizes = [len(one) for one in targets]
    for number, part in zip(chosen, torch.split(flat, sizes), strict=True):
        parts[number] = part
    if marks is not None and best is not None:
        for number, mark in zip(chosen, torch.split(best, sizes), strict=True):
            marks[number] = mark
    return True


def _one_by_one(
    model: Any,
    queries: Sequence[Query],
    chosen: Sequence[int],
    memory: int | None,
    parts: list[Tensor],
    marks: list[Tensor],
) -> None:
    found: list[Tensor] = []
    own = [queries[number] for number in chosen]
    scores = batched_log_probs(model, own, *plain_budget(model, memory), found)
    for number, part, mark in zip(chosen, scores, found, strict=True):
        parts[number], marks[number] = part, mark


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
