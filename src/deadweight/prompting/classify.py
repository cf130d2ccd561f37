"""A model as the classifier its prompt makes of it: f₀ without demonstrations, f_icl(·; S) with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deadweight.errors import InputError
from deadweight.prompting.demonstrations import RELABEL, ZERO_SHOT, Split, check_conditions, demonstrations
from deadweight.prompting.scorer import score_labels
from deadweight.prompting.tasks import Task

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel


@dataclass(frozen=True)
class Answers:
    """What one prompt frame made of the test items.

    condition, k:     which frame it was; k is 0 without demonstrations.
    log_probs:        float64 [items, labels], in the order of the task's labels, rounded to 6 decimals: finer
                      differences are noise of the arithmetic.
    """

    condition: str
    k: int
    log_probs: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest label of each item; the first one on ties. [items]"""
        return np.asarray(np.argmax(self.log_probs, axis=1), dtype=np.int64)

    @property
    def margin(self) -> NDArray[np.float64]:
        """By how much, in nats, the likeliest label leads the next. [items]"""
        ordered = np.sort(self.log_probs, axis=1)
        return np.round(ordered[:, -1] - ordered[:, -2], 6)


def frames(conditions: Sequence[str], k: Sequence[int]) -> list[tuple[str, int]]:
    """(condition, k) of every prompt frame: zero-shot has one, the others one for each k > 0."""
    check_conditions(conditions)
    if any(one < 0 for one in k) or len(set(k)) < len(k):
        raise InputError(f"k = {list(k)}", expected="numbers of demonstrations, each once, none below 0")
    shown = [(condition, one) for condition in conditions if condition != ZERO_SHOT for one in sorted(k) if one > 0]
    return [(ZERO_SHOT, 0), *shown] if ZERO_SHOT in conditions or 0 in k else shown


def frame_prompts(task: Task, split: Split, condition: str, k: int, seed: int) -> list[str]:
    """The prompts of all test items of `split` in one frame; the demonstrations are the same for each of them."""
    shown = [] if condition == ZERO_SHOT else demonstrations(task, split, k, seed)
    pairs = [(item, RELABEL[condition](task, item, seed)) for item in shown]
    return [task.prompt(pairs, item) for item in split.test]


def classify(
    lm: LanguageModel,
    task: Task,
    split: Split,
    *,
    conditions: Sequence[str],
    k: Sequence[int],
    seed: int,
    memory: int | None = None,
) -> list[Answers]:
    """Ask about every test item in every frame, in one call of the scorer: frames share what they can.

    `seed` draws the demonstrations and their random labels. Raises :class:`InputError` as :func:`score_labels`
    and :func:`demonstrations` do, before anything is computed.
    """
    wanted = frames(conditions, k)
    prompts = [text for condition, one in wanted for text in frame_prompts(task, split, condition, one, seed)]
    scores = score_labels(lm, prompts, [task.answer(label) for label in task.labels], memory=memory)
    by_frame = np.round(scores.double().numpy(), 6).reshape(len(wanted), len(split.test), len(task.labels))
    return [Answers(condition, one, by_frame[at]) for at, (condition, one) in enumerate(wanted)]
