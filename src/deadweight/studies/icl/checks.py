"""What the grid of an icl study cannot do with its tasks and models, found before any weights are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from deadweight.loading import load_tokenizer
from deadweight.models.embedded import SMOLLM2
from deadweight.prompting import Setting, Split, Task, demonstrations, frame_prompts, frames, split_items
from deadweight.prompting.demonstrations import draw, worded
from deadweight.prompting.embedded_tasks import ASKING
from deadweight.prompting.encoding import encode_queries

# Of a task's questions so many of the longest are tried with all demonstrations; the scorer checks every one.
LONGEST = 3


def demonstration_seed(study_seed: int, seed: int) -> int:
    """Sets of demonstrations of different studies share nothing, those of one study are numbered."""
    return study_seed * 1_000_003 + seed


def check_task(
    task: Task,
    k: Sequence[int],
    conditions: Sequence[str],
    seeds: Sequence[int],
    seed: int,
    limit: int | None,
    per_item: bool = False,
) -> None:
    """Refuse unknown conditions, and more demonstrations or labels than there are."""
    wanted = frames(conditions, k)
    most = max((one for _, one in wanted), default=0)
    split = split_items(task, seed, limit)
    for condition, _ in wanted:
        worded(task, condition, seed)
    for one in seeds:
        number = demonstration_seed(seed, one)
        own = draw(number, "own demonstrations", split.test[0].id) if per_item else number
        demonstrations(task, split, most, own)


def known_to_fit(language: str, tasks: Sequence[str]) -> bool:
    """The embedded model and tasks: tests have tried them, so that the usual run need not read a tokenizer twice."""
    return language == f"embedded:{SMOLLM2}" and all(task in {f"embedded:{name}" for name in ASKING} for task in tasks)


def check_prompts(
    language: str,
    tasks: Sequence[Task],
    conditions: Sequence[str],
    k: Sequence[int],
    seeds: Sequence[int],
    seed: int,
    limit: int | None,
    setting: Setting,
    room: int,
) -> None:
    """Refuse labels the model's tokenizer makes nothing of or cannot tell apart, and prompts beyond the context.

    `room` is how many tokens must stay free for what the model writes.
    """
    tokenizer, longest = load_tokenizer(language)
    most = sys.maxsize if longest is None or setting.too_long == "drop" else longest - room
    for task in tasks:
        split = split_items(task, seed, limit)
        long = sorted(split.test, key=lambda item: len(task.ask(item)), reverse=True)[:LONGEST]
        wanted = frames(conditions, k)
        for condition in dict.fromkeys(condition for condition, _ in wanted):
            shown = max(one for name, one in wanted if name == condition)
            _encode(tokenizer, task, split, condition, 0, demonstration_seed(seed, seeds[0]), setting, most)
            for number in seeds if shown else ():
                own = demonstration_seed(seed, number)
                _encode(tokenizer, task, Split(split.pool, tuple(long)), condition, shown, own, setting, most)


def _encode(
    tokenizer: Any, task: Task, split: Split, condition: str, k: int, seed: int, setting: Setting, most: int
) -> None:
    frame = frame_prompts(task, split, condition, k, seed, Setting(setting.per_item))
    encode_queries(tokenizer, frame.prompts, [list(frame.words)] * len(frame.prompts), most)
