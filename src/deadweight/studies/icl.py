"""The icl study: do demonstrations override label meanings, or only refine a prior? (arXiv 2511.21038)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Json, Outcome, Record, Records, Workbench
from deadweight.lab.findings import Findings, settle
from deadweight.models import LanguageModel, check_language, load_lm
from deadweight.prompting import CONDITIONS, Setting, Task, load_task
from deadweight.prompting.demonstrations import EVERY_CONDITION
from deadweight.prompting.generate import LocalGenerator
from deadweight.prompting.server import ServerGenerator, check_server, is_server, parse_server
from deadweight.report import Section
from deadweight.studies.icl_cells import MAX_TOKENS, STUDY, VERSION, ask, cell_of, check_decoding, digest, write
from deadweight.studies.icl_checks import check_prompts, check_task, known_to_fit
from deadweight.studies.icl_findings import icl_findings
from deadweight.studies.icl_page import icl_sections
from deadweight.studies.study import Study, command_line

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
        default="shared", description="one set a seed for all items, or a set of its own for each item"
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
        small: dict[str, Any] = {"tasks": TASKS[:3], "k": (2, 8), "seeds": (0, 1), "limit": 24}
        return cls(**{**small, **options})

    def cells(self) -> list[Cell]:
        names = {source: self._fingerprint(source) for source in self.language}
        tasks = [load_task(source) for source in self.tasks]
        called = [task.name for task in tasks]
        for what, given in (("task", called), ("model", self.language), ("seed", self.seeds), ("k", self.k)):
            if len(set(given)) < len(given):
                raise InputError(f"{what}: {list(given)}", expected=f"each {what} once")
        for task in tasks:
            check_task(
                task, self.k, self.conditions, self.seeds, self.seed, self.limit, self.demonstrations == "per-item"
            )
        for language in self.language:
            if not is_server(language) and not known_to_fit(language, self.tasks):
                check_prompts(
                    language, tasks, self.conditions, self.k, self.seeds, self.seed, self.limit,
                    Setting(self.demonstrations == "per-item", self.too_long),
                    MAX_TOKENS if self.decoding == "greedy" else 0,
                )  # fmt: skip
        dtypes = dict.fromkeys([self.dtype, *([self.compare_dtype] if self.compare_dtype else [])])
        return [
            cell_of(task, self._params(language, source, seed, dtype), {"language": name, "task": task.digest})
            for language, name in names.items()
            for dtype in dtypes
            for seed in self.seeds  # before the tasks, so that a budget that ends cuts all of them alike
            for source, task in zip(self.tasks, tasks, strict=True)
        ]

    def _fingerprint(self, source: str) -> str:
        if is_server(source):
            check_server(source, self.decoding)
            return source
        language = check_language(source)
        return digest(Path(language.name)) or language.text

    def _params(self, language: str, task: str, seed: int, dtype: str) -> dict[str, Json]:
        return {
            "task": task, "seed": seed, "k": list(self.k), "conditions": list(self.conditions), "limit": self.limit,
            "study_seed": self.seed, "dtype": dtype, "language": language, "decoding": self.decoding,
            "demonstrations": self.demonstrations, "too_long": self.too_long,
        }  # fmt: skip

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        source, dtype, task = cell.params["language"], cell.params["dtype"], load_task(cell.params["task"])
        if is_server(source):
            bench.note(f"asking {parse_server(source).model}")
            generator = ServerGenerator(parse_server(source), bench.folder / "replies.jsonl")
            return Outcome(write(generator, task, cell.params))
        if self._kept.get("of") != (source, dtype):
            self._kept.clear()
            bench.note(f"loading {source}")
            self._kept.update(lm=load_lm(source, dtype=dtype, device=bench.device), of=(source, dtype))
        lm: LanguageModel = self._kept["lm"]
        bench.note(f"asking {lm.name.rsplit('/', 1)[-1]}")
        if cell.params["decoding"] == "greedy":
            return Outcome(write(LocalGenerator(lm), task, cell.params, lm))
        return Outcome(ask(lm, task, cell.params))

    def findings(self, records: Records) -> list[Finding]:
        return icl_findings(records, self.margin, self.command)

    def sections(self, records: Records) -> list[Section]:
        return icl_sections(records)

    def close(self) -> None:
        self._kept.clear()

    @property
    def command(self) -> str:
        """What a person types to see the study again."""
        usual: dict[str, Any] = {"conditions": CONDITIONS, "decoding": "sum", "demonstrations": "shared"}
        usual |= {"too_long": "refuse", "compare_dtype": None, "limit": None}
        names = [name for name in usual if getattr(self, name) != usual[name]]
        names = ["language", "tasks", "k", "seeds", "seed", *names]
        return command_line("icl", {name: getattr(self, name) for name in names})


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
        One a set of demonstrations; ``.findings()`` says what follows.

    Raises
    ------
    InputError
        Before anything is computed: unknown conditions, more demonstrations than the pool has, a prompt longer than
        the model's context, labels the tokenizer does not tell apart.
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
    return Records(found, judge=lambda records: Findings(settle(icl_findings(records, margin, ""))))
