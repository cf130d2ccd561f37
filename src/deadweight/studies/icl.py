"""The icl study: do demonstrations override label meanings, or only refine a prior? (arXiv 2511.21038)"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, field_validator

from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Json, Outcome, Record, Records, Workbench
from deadweight.lab.findings import Findings, settle
from deadweight.models import LanguageModel, check_language, load_lm
from deadweight.prompting import CONDITIONS, Answers, Task, classify, demonstrations, load_task, split_items
from deadweight.prompting.alignment import permutation
from deadweight.prompting.classify import frames
from deadweight.report import Section
from deadweight.studies.icl_findings import STUDY, icl_findings, icl_sections
from deadweight.studies.study import Study, command_line

SMOLLM2 = "embedded:smollm2-135m-instruct"
TASKS = ("embedded:sentiment", "embedded:topic", "embedded:question_type", "embedded:nli")
# Tokens a second of a 135M model in fp32 on two cores; only the estimate of --dry-run depends on it.
USUAL_SPEED = 350


class IclStudy(Study):
    """Do demonstrations override what label words mean, or only refine what the model believes anyway?

    One cell is one task with one set of demonstrations: all its frames (conditions × numbers of demonstrations) go
    through the scorer in one call, which computes what they share once.
    """

    kind: ClassVar[str] = STUDY
    version: ClassVar[int] = 1

    language: str = Field(default=SMOLLM2, description="source of the language model")
    tasks: tuple[str, ...] = Field(default=TASKS, min_length=1, description="sources of the classification tasks")
    k: tuple[int, ...] = Field(default=(2, 4, 8, 16), min_length=1, description="numbers of demonstrations")
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1, description="a set of demonstrations for each"
    )
    conditions: tuple[str, ...] = Field(default=CONDITIONS, description=f"some of {', '.join(CONDITIONS)}")

    _kept: dict[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("tasks", "k", "conditions", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """One task, number or condition may be written without a list around it."""
        return [value] if isinstance(value, str | int) else value

    @classmethod
    def for_audit(cls, **options: Any) -> IclStudy:
        """The study as the audit runs it: small enough for a minute on two cores; `options` win."""
        small: dict[str, Any] = {"tasks": TASKS[:3], "k": (2, 8), "seeds": (0, 1), "limit": 24}
        return cls(**{**small, **options})

    def cells(self) -> list[Cell]:
        language = check_language(self.language)
        tasks = [load_task(source) for source in self.tasks]
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise InputError(f"tasks {names}", expected="each task once")
        for task in tasks:
            check_task(task, self.k, self.conditions, self.seeds, self.seed, self.limit)
        model = _digest(Path(language.name)) or language.text
        return [
            _cell(task, source, seed, self.k, self.conditions, self.limit, self.seed, self.dtype,
                  {"language": model, "task": task.digest}, {"language": self.language})
            for source, task in zip(self.tasks, tasks, strict=True)
            for seed in self.seeds
        ]  # fmt: skip

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        if "lm" not in self._kept:
            bench.note(f"loading {self.language}")
            self._kept["lm"] = load_lm(self.language, dtype=self.dtype, device=bench.device)
        lm: LanguageModel = self._kept["lm"]
        bench.note(f"asking {lm.name.rsplit('/', 1)[-1]}")
        return Outcome(ask(lm, load_task(cell.params["task"]), cell.params))

    def findings(self, records: Records) -> list[Finding]:
        return icl_findings(records, self.margin, self.command)

    def sections(self, records: Records) -> list[Section]:
        return icl_sections(records)

    def close(self) -> None:
        self._kept.clear()

    @property
    def command(self) -> str:
        """What a person types to see the study again."""
        names = ("language", "tasks", "k", "seeds", "seed", "limit")
        return command_line("icl", {name: getattr(self, name) for name in names})


def check_task(
    task: Task, k: Sequence[int], conditions: Sequence[str], seeds: Sequence[int], seed: int, limit: int | None
) -> None:
    """Refuse what the grid cannot do with `task` before any model is loaded."""
    most = max((one for _, one in frames(conditions, k)), default=0)
    split = split_items(task, seed, limit)
    for one in seeds:
        demonstrations(task, split, most, _demonstration_seed(seed, one))


def _demonstration_seed(study_seed: int, seed: int) -> int:
    """Sets of demonstrations of different studies share nothing, those of one study are numbered."""
    return study_seed * 1_000_003 + seed


def _cell(
    task: Task, source: str, seed: int, k: Sequence[int], conditions: Sequence[str], limit: int | None,
    study_seed: int, dtype: str, fingerprints: dict[str, str], more: dict[str, Json],
) -> Cell:  # fmt: skip
    wanted = frames(conditions, k)
    items = split_items(task, study_seed, limit).test
    letters = sum(len(task.ask(item)) for item in items)
    params = {"task": source, "seed": seed, "k": list(k), "conditions": list(conditions), "limit": limit,
              "study_seed": study_seed, "dtype": dtype, **more}  # fmt: skip
    seconds = math.ceil(letters / 4 * len(wanted) / USUAL_SPEED)
    return Cell(STUDY, "answers", params, (), fingerprints, IclStudy.version, seconds=seconds)


def ask(lm: LanguageModel, task: Task, params: Any) -> dict[str, Json]:
    """The result of one cell: who was asked, the truth, and every frame's log-probabilities and answers."""
    split = split_items(task, params["study_seed"], params["limit"])
    seed = _demonstration_seed(params["study_seed"], params["seed"])
    answers = classify(lm, task, split, conditions=params["conditions"], k=params["k"], seed=seed)
    gold = [task.labels.index(item.label) for item in split.test]
    return {
        "task": task.name,
        "labels": list(task.labels),
        "phi": permutation(task.phi, task.labels).tolist(),
        "items": [item.id for item in split.test],
        "gold": gold,
        "frames": [_frame(one) for one in answers],
        **{_accuracy_name(one): float((one.predicted == gold).mean()) for one in answers},
    }


def _frame(answers: Answers) -> dict[str, Json]:
    return {
        "condition": answers.condition,
        "k": answers.k,
        "log_probs": answers.log_probs.tolist(),
        "predicted": answers.predicted.tolist(),
        "margin": answers.margin.tolist(),
    }


def _accuracy_name(answers: Answers) -> str:
    return f"accuracy {answers.condition}" + (f" k={answers.k}" if answers.k else "")


def run_icl(
    lm: LanguageModel,
    task: Task,
    *,
    conditions: Sequence[str] = CONDITIONS,
    k: Sequence[int] = (2, 4, 8),
    seeds: int | Sequence[int] = 3,
    limit: int | None = None,
    seed: int = 0,
    margin: float = 0.01,
) -> Records:
    """Ask a language model about one task under several conditions; nothing is written.

    Parameters
    ----------
    lm, task:
        From :func:`deadweight.load_lm` and :func:`deadweight.load_task`, or built by hand.
    conditions:
        Some of ``zero-shot``, ``natural``, ``inverted``, ``random``.
    k:
        Numbers of demonstrations; the smaller sets are the beginnings of the larger.
    seeds:
        How many sets of demonstrations, or their numbers.
    limit:
        Ask about so many test items only.
    seed, margin:
        As in every study: what all randomness follows from, and the loss one is willing to accept.

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
    numbers = range(seeds) if isinstance(seeds, int) else list(seeds)
    check_task(task, k, conditions, numbers, seed, limit)
    dtype = str(next(lm.model.parameters()).dtype).removeprefix("torch.")
    found = []
    for number in numbers:
        cell = _cell(task, task.name, number, k, conditions, limit, seed, dtype,
                     {"language": lm.name, "task": task.digest}, {})  # fmt: skip
        found.append(Record(cell, ask(lm, task, cell.params), {}, {}))
    return Records(found, judge=lambda records: Findings(settle(icl_findings(records, margin, ""))))


def _digest(path: Path) -> str | None:
    """A digest of a file's content, or of all files of a folder; None for what is no path here."""
    if not path.exists():
        return None
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    total = hashlib.blake2b(digest_size=12)
    for one in files:
        total.update(one.name.encode())
        with one.open("rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()
