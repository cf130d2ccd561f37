"""Prompt frames: a condition and a number of demonstrations, and the prompts they make of the test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deadweight.errors import InputError
from deadweight.prompting.demonstrations import (
    ZERO_SHOT,
    Split,
    check_conditions,
    demonstrations,
    draw,
    relabel,
    worded,
)
from deadweight.prompting.tasks import Item, Task

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel


@dataclass(frozen=True)
class Setting:
    """How demonstrations are dealt.

    per_item:  each test item has a set of its own, drawn from (seed, item), instead of one set for all.
    too_long:  what becomes of a prompt beyond the model's context: ``refuse`` it, or ``drop`` its last demonstrations
               and record how many.
    """

    per_item: bool = False
    too_long: Literal["refuse", "drop"] = "refuse"


@dataclass(frozen=True)
class Frame:
    """The prompts of all test items (and what else was asked) in one frame, and the label words that may follow."""

    condition: str
    k: int
    prompts: tuple[str, ...]
    words: tuple[str, ...]
    dropped: tuple[int, ...]


def frames(conditions: Sequence[str], k: Sequence[int]) -> list[tuple[str, int]]:
    """(condition, k) of every prompt frame: zero-shot has one, the others one for each k > 0."""
    check_conditions(conditions)
    if any(one < 0 for one in k) or len(set(k)) < len(k):
        raise InputError(f"k = {list(k)}", expected="numbers of demonstrations, each once, none below 0")
    shown = [(condition, one) for condition in conditions if condition != ZERO_SHOT for one in sorted(k) if one > 0]
    return [(ZERO_SHOT, 0), *shown] if ZERO_SHOT in conditions or 0 in k else shown


def frame_prompts(
    task: Task,
    split: Split,
    condition: str,
    k: int,
    seed: int,
    setting: Setting | None = None,
    lm: LanguageModel | None = None,
    extra: Item | None = None,
) -> Frame:
    """The prompts of the test items of `split` in one frame, and one more for `extra` where given.

    `lm` is needed only to drop what is too long for it.
    """
    setting = setting or Setting()
    named = worded(task, condition, seed)
    shared = () if condition == ZERO_SHOT or setting.per_item else demonstrations(task, split, k, seed)
    prompts, dropped = [], []
    for item in [*split.test, *([extra] if extra else [])]:
        shown = shared
        if setting.per_item and condition != ZERO_SHOT:
            shown = demonstrations(task, split, k, draw(seed, "own demonstrations", item.id))
        pairs = [(one, relabel(condition)(task, one, seed)) for one in shown]
        text = named.prompt(pairs, item)
        if setting.too_long == "drop" and lm is not None:
            while pairs and _tokens(lm, named, text) > lm.max_length:
                pairs.pop()
                text = named.prompt(pairs, item)
        prompts.append(text)
        dropped.append(len(shown) - len(pairs))
    words = tuple(named.answer(label) for label in named.labels)
    return Frame(condition, k, tuple(prompts), words, tuple(dropped) if any(dropped) else ())


def _tokens(lm: LanguageModel, task: Task, prompt: str) -> int:
    return max(len(lm.tokenizer(prompt + task.answer(label), verbose=False).input_ids) for label in task.labels) - 1
