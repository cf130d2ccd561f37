"""A model as the classifier its prompt makes of it: f₀ without demonstrations, f_icl(·; S) with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deadweight.prompting.frames import Frame, Setting, frame_prompts, frames
from deadweight.prompting.scorer import label_scores
from deadweight.prompting.tasks import Item, Task

if TYPE_CHECKING:
    from deadweight.models.language import LanguageModel
    from deadweight.prompting.demonstrations import Split

# The arithmetic's noise in a log-probability, in nats: the scorer's own promise in float32, and the largest shift
# seen between the two for SmolLM2-135M in bfloat16.
NOISE: Mapping[str, float] = {"float32": 1e-3, "bfloat16": 0.8}
CONTENT_FREE = "N/A"
LIKELIHOODS = ("sum", "mean", "calibrated")


@dataclass(frozen=True)
class Answers:
    """What one prompt frame made of the test items.

    condition, k:     which frame it was; k is 0 without demonstrations.
    log_probs:        float64 [items, labels], in the order of the task's labels, rounded to 6 decimals: finer
                      differences are noise of the arithmetic. The sum over a label's tokens.
    tokens:           [items, labels], how many tokens each label had.
    content_free:     [labels], the same log-probabilities after a question without content.
    dropped:          [items], demonstrations left out because the prompt was too long.
    """

    condition: str
    k: int
    log_probs: NDArray[np.float64]
    tokens: NDArray[np.int64] | None = None
    content_free: NDArray[np.float64] | None = None
    decoding: str = "sum"
    dropped: tuple[int, ...] = field(default=())

    def scores(self, decoding: str | None = None) -> NDArray[np.float64]:
        """[items, labels]: what the largest of decides. ``sum``, ``mean`` over the label's tokens, or ``calibrated``.

        Calibrated: minus the log-probability after the content-free question (contextual calibration of Zhao et al.
        2021, in the log domain).
        """
        decoding = decoding or self.decoding
        if decoding == "mean" and self.tokens is not None:
            return np.asarray(self.log_probs / self.tokens)
        if decoding == "calibrated" and self.content_free is not None:
            return np.asarray(self.log_probs - self.content_free)
        return self.log_probs

    def decided(self, decoding: str) -> NDArray[np.int64]:
        """The likeliest label of each item; the first one on ties. [items]"""
        return np.asarray(np.argmax(self.scores(decoding), axis=1), dtype=np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The answers by the decoding that was asked for. [items]"""
        return self.decided(self.decoding)

    @property
    def margin(self) -> NDArray[np.float64]:
        """By how much, in nats, the likeliest label leads the next. [items]"""
        ordered = np.sort(self.scores(), axis=1)
        return np.round(ordered[:, -1] - ordered[:, -2], 6)


def classify(
    lm: LanguageModel,
    task: Task,
    split: Split,
    *,
    conditions: Sequence[str],
    k: Sequence[int],
    seed: int,
    decoding: str = "sum",
    setting: Setting | None = None,
    memory: int | None = None,
) -> list[Answers]:
    """Ask about every test item in every frame, in one call of the scorer: frames share what they can.

    `seed` draws the demonstrations and their random labels. Raises :class:`InputError` as :func:`score_labels`
    and :func:`demonstrations` do, before anything is computed.
    """
    wanted = [
        frame_prompts(task, split, condition, one, seed, setting, lm, _empty(task))
        for condition, one in frames(conditions, k)
    ]
    prompts = [text for frame in wanted for text in frame.prompts]
    labels = [frame.words for frame in wanted for _ in frame.prompts]
    sums, counts = label_scores(lm, prompts, labels, memory=memory)
    size = len(split.test)
    log_probs = np.round(sums.double().numpy(), 6).reshape(len(wanted), size + 1, len(task.labels))
    tokens = counts.numpy().reshape(log_probs.shape)
    return [
        Answers(frame.condition, frame.k, log_probs[at, :size], tokens[at, :size], log_probs[at, size], decoding,
                frame.dropped)
        for at, frame in enumerate(wanted)
    ]  # fmt: skip


def _empty(task: Task) -> Item:
    """A question without content, asked once in every frame for the calibrated decoding."""
    return Item(dict.fromkeys(task.items[0].fields, CONTENT_FREE), task.labels[0])


__all__ = ["LIKELIHOODS", "NOISE", "Answers", "Frame", "classify", "frame_prompts", "frames"]
