"""Strings to token sequences: where a prompt ends and a label begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deadweight.errors import InputError


@dataclass(frozen=True)
class Query:
    """One prompt with one label: `tokens` is both, the label starting at `start` (>= 1)."""

    prompt: int
    label: int
    tokens: tuple[int, ...]
    start: int


def label_lists(prompts: Sequence[str], labels: Sequence[str] | Sequence[Sequence[str]]) -> list[list[str]]:
    """The labels of each prompt: one list for all, or one list a prompt."""
    if isinstance(prompts, str) or isinstance(labels, str):
        raise InputError(
            "prompts or labels given as one string", expected="a list of strings", cure="wrap the string in a list"
        )
    shared = [label for label in labels if isinstance(label, str)]
    if len(shared) == len(labels):
        lists = [shared] * len(prompts)
    elif shared:
        raise InputError(
            "labels mix strings and lists", expected="one list of strings, or one list of strings for each prompt"
        )
    else:
        lists = [list(one) for one in labels]
    if len(lists) != len(prompts):
        raise InputError(
            f"{len(lists)} lists of labels for {len(prompts)} prompts", expected="one list for each prompt"
        )
    if any(not one for one in lists):
        raise InputError("an empty list of labels", expected="at least one label for each prompt")
    return lists


def encode_queries(
    tokenizer: Any, prompts: Sequence[str], labels: Sequence[Sequence[str]], max_length: int
) -> list[Query]:
    """Tokenise every prompt with every one of its labels.

    The boundary rule is lm-evaluation-harness's: trailing white space of the prompt moves to the label, prompt and
    prompt + label are encoded apart, and the label's tokens are what the second has beyond the length of the first.
    An empty prompt is the tokenizer's BOS token, else its EOS token. A prompt that begins with what the tokenizer puts
    before a text, as chat templates write it, gets no second one.

    Raises :class:`InputError` for a label without tokens, two labels of a prompt with the same tokens, and a
    sequence the model cannot hold.
    """
    leading = _leading_ids(tokenizer)
    texts = [prompt.rstrip() for prompt in prompts]
    spaces = [prompt[len(text) :] for prompt, text in zip(prompts, texts, strict=True)]
    contexts = [_begun(leading, ids) for ids in _ids(tokenizer, texts)]
    wholes = iter(
        _ids(
            tokenizer,
            [t + s + label for t, s, own in zip(texts, spaces, labels, strict=True) for label in own],
        )
    )
    queries = []
    for p, own in enumerate(labels):
        seen: dict[tuple[int, ...], str] = {}
        for n, label in enumerate(own):
            whole = _begun(leading, next(wholes))
            context = contexts[p]
            if not context:
                context = [_start_id(tokenizer)]
                whole = context + whole
            answer = tuple(whole[len(context) :])
            _check(answer, label, seen, prompts[p])
            if len(whole) - 1 > max_length:
                raise InputError(
                    f"prompt {p} with label {label!r} has {len(whole)} tokens: {_short(prompts[p])}",
                    expected=f"at most {max_length + 1}, the model's context and one",
                    cure="use fewer demonstrations, shorter items, or a model with a longer context",
                )
            # The first tokens are those of the whole string, as the harness feeds them to the model.
            queries.append(Query(p, n, tuple(whole), len(context)))
    return queries


def _check(answer: tuple[int, ...], label: str, seen: dict[tuple[int, ...], str], prompt: str) -> None:
    if not answer:
        raise InputError(
            f"label {label!r} has no tokens of its own after {_short(prompt)}",
            expected="a label of at least one token",
            cure="give the label some text, or end the prompt so that the two do not merge into one token",
        )
    if answer in seen:
        raise InputError(
            f"labels {seen[answer]!r} and {label!r} have the same tokens",
            expected="labels the tokenizer tells apart",
            cure="choose other label words",
        )
    seen[answer] = label


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: our own check of the length is the one that counts.
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [list(ids) for ids in encoded]


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of prompts to continue: with what the tokenizer puts before a text, once, and nothing after."""
    leading = _leading_ids(tokenizer)
    return [_begun(leading, ids) for ids in _ids(tokenizer, prompts)]


def _begun(leading: list[int], ids: list[int]) -> list[int]:
    return ids if ids[: len(leading)] == leading else leading + ids


def _leading_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text by default (a BOS token or nothing); what it puts after is not ours."""
    probe = "a"
    plain = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
    default = list(tokenizer(probe)["input_ids"])
    for at in range(len(default) - len(plain) + 1):
        if default[at : at + len(plain)] == plain:
            return default[:at]
    return []


def _start_id(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError(
        "an empty prompt, and the tokenizer has neither BOS nor EOS",
        expected="a token to start from",
        cure="give the prompt some text",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"…{text[-57:]}")
