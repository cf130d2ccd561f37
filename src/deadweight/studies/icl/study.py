"""The icl study: do demonstrations override label meanings, or only refine a prior? (arXiv 2511.21038)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from deadweight.lab import Json, Record, Records
from deadweight.loading import load_lm
from deadweight.models import LanguageModel
from deadweight.prompting import CONDITIONS, Task
from deadweight.prompting.demonstrations import EVERY_CONDITION
from deadweight.prompting.generate import LocalGenerator
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.study import Study
from deadweight.studies.icl.answers import Answers
from deadweight.studies.icl.arithmetic import Arithmetic
from deadweight.studies.icl.cells import STUDY, VERSION, ask, cell_of, check_decoding, write
from deadweight.studies.icl.checks import check_task
from deadweight.studies.icl.override import Override
from deadweight.studies.icl.sweep import Sweep

SMOLLM2 = "embedded:smollm2-135m-instruct"
TASKS = ("embedded:sentiment", "embedded:topic", "embedded:question_type", "embedded:nli", "embedded:subjectivity",
         "embedded:paraphrase", "embedded:emotion", "embedded:acceptability")  # fmt: skip


class IclStudy(Study):
    """Do demonstrations override what label words mean, or only refine what the model believes anyway?

    One cell is one task with one set of demonstrations: all its frames (conditions × numbers of demonstrations) go
    through the scorer in one call, which computes what they share once.
    """

    kind: ClassVar[str] = STUDY
    version: ClassVar[int] = VERSION
    EXPERIMENTS: ClassVar[tuple[Experiment, ...]] = (Answers(), Sweep(), Override(), Arithmetic())
    TITLE: ClassVar[str] = "Demonstrations"
    QUESTION: ClassVar[str] = (
        "Do demonstrations override what label words mean, or only refine what the model believes anyway?"
    )

    language: tuple[str, ...] = Field(default=(SMOLLM2,), min_length=1, description="sources of the language models")
    tasks: tuple[str, ...] = Field(default=TASKS, min_length=1, description="sources of the classification tasks")
    k: tuple[int, ...] = Field(default=(2, 4, 8, 16), min_length=1, description="numbers of demonstrations")
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1, description="a set of demonstrations for each"
    )
    conditions: tuple[str, ...] = Field(default=CONDITIONS, description=f"some of {', '.join(EVERY_CONDITION)}")
    decoding: Literal["sum", "mean", "calibrated", "greedy"] = Field(
        default="sum", description="likeliest label (sum or mean over its tokens, or calibrated), or greedy generation"
    )
    demonstrations: Literal["shared", "per-item"] = Field(
        default="shared", description="one set per seed for all items, or a set of its own for each item"
    )
    too_long: Literal["refuse", "drop"] = Field(
        default="refuse", description="what becomes of prompts beyond the context: refuse, or drop demonstrations"
    )
    compare_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="ask everything again in this dtype, to see what the arithmetic alone changes"
    )

    _kept: dict[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("language", "tasks", "k", "conditions", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """One model, task, number or condition may be written without a list around it."""
        return [value] if isinstance(value, str | int) else value

    @classmethod
    def for_audit(cls, **options: Any) -> IclStudy:
        """The study as the audit runs it: small enough for a minute on two cores; `options` win."""
        small: dict[str, Any] = {"tasks": TASKS[:3], "k": (2, 8), "seeds": (0, 1, 2), "limit": 20}
        return cls(**{**small, **options})

    def params(self, language: str, task: str, seed: int, dtype: str) -> dict[str, Json]:
        """What of the options goes into a cell."""
        return {
            "task": task, "seed": seed, "k": list(self.k), "conditions": list(self.conditions), "limit": self.limit,
            "study_seed": self.seed, "dtype": dtype, "language": language, "decoding": self.decoding,
            "demonstrations": self.demonstrations, "too_long": self.too_long,
        }  # fmt: skip

    def loaded(self, source: str, dtype: str, device: str) -> LanguageModel:
        """The language model, kept until another is asked for."""
        if self._kept.get("of") != (source, dtype):
            self._kept.clear()
            self._kept.update(lm=load_lm(source, dtype=dtype, device=device), of=(source, dtype))
        lm: LanguageModel = self._kept["lm"]
        return lm

    def close(self) -> None:
        self._kept.clear()


def run_icl(
    lm: LanguageModel,
    task: Task,
    *,
    conditions: str | Sequence[str] = CONDITIONS,
    k: int | Sequence[int] = (2, 4, 8),
    seeds: int | Sequence[int] = 3,
    limit: int | None = None,
    seed: int = 0,
    margin: float = 0.01,
    decoding: str = "sum",
    demonstrations: Literal["shared", "per-item"] = "shared",
    too_long: Literal["refuse", "drop"] = "refuse",
) -> Records:
    """Ask a language model about one task under several conditions; nothing is written.

    Parameters
    ----------
    lm, task:
        From :func:`deadweight.load_lm` and :func:`deadweight.load_task`, or built by hand.
    conditions:
        Some of ``zero-shot``, ``natural``, ``inverted``, ``random``, ``abstract`` (A, B, …), ``nonsense`` (foo, bar,
        …) and ``inverted:SHARE``, which inverts that share of the labels.
    k:
        Numbers of demonstrations; the smaller sets are the beginnings of the larger.
    seeds:
        How many sets of demonstrations, or their numbers.
    limit:
        Ask about so many test items only.
    seed, margin:
        As in every study: what all randomness follows from, and the loss one is willing to accept.
    decoding:
        ``sum``, ``mean``, ``calibrated`` or ``greedy``.
    demonstrations, too_long:
        As the study's options of these names.

    Returns
    -------
    Records
        One per set of demonstrations; ``.findings()`` says what follows.

    Raises
    ------
    InputError
        Before anything is computed: unknown conditions, more demonstrations than the pool has, a prompt longer than
        the model's context, labels the tokenizer does not tell apart.

    Examples
    --------
    >>> from deadweight.errors import InputError
    >>> try:
    ...     run_icl(LanguageModel(None, None, "toy", 64), None, decoding="beam")
    ... except InputError as problem:
    ...     print(problem.given)
    decoding 'beam'
    """
    check_decoding(decoding)
    shown, asked = [k] if isinstance(k, int) else list(k), [conditions] if isinstance(conditions, str) else conditions
    numbers = range(seeds) if isinstance(seeds, int) else list(seeds)
    check_task(task, shown, asked, numbers, seed, limit, demonstrations == "per-item")
    dtype = str(next(lm.model.parameters()).dtype).removeprefix("torch.")
    found = []
    for number in numbers:
        params: dict[str, Json] = {
            "task": task.name, "seed": number, "k": shown, "conditions": list(asked), "limit": limit,
            "study_seed": seed, "dtype": dtype, "language": lm.name, "decoding": decoding,
            "demonstrations": demonstrations, "too_long": too_long,
        }  # fmt: skip
        cell = cell_of(task, params, {"language": lm.name, "task": task.digest})
        result = write(LocalGenerator(lm), task, params, lm) if decoding == "greedy" else ask(lm, task, params)
        found.append(Record(cell, result, {}, {}))
    study = IclStudy(language=(lm.name,), tasks=(task.name,), margin=margin)
    return Records(found, judge=study.judge)
