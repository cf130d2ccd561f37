"""What a study is: options, a list of experiments, and what follows from the records by the one road all share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from deadweight.errors import InputError
from deadweight.lab import Cell, Findings, Outcome, Records, Workbench
from deadweight.registry import Registry
from deadweight.report import Figure, Section, Table
from deadweight.studies.frame.experiment import Experiment, check_effects, check_experiments
from deadweight.studies.frame.remedy import command_line
from deadweight.studies.frame.verdicts import Settled, select, settle

_NOT_TYPED = ("device",)  # where it ran is not what was asked


class Study(BaseModel, ABC):
    """A study; its fields are its options, the same words in Python, on the command line and in YAML.

    A study lists its experiments and its subjects; everything else is here: cells, work, effects, verdicts, page.
    Findings and sections are functions of the records alone, so that a page can be rebuilt without computing.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    EXPERIMENTS: ClassVar[tuple[Experiment, ...]] = ()
    TITLE: ClassVar[str] = ""
    QUESTION: ClassVar[str] = ""

    seed: int = Field(default=0, ge=0, description="everything random follows from it")
    limit: int | None = Field(default=None, gt=0, description="use at most so many items (images, test items)")
    device: str | None = Field(default=None, description="torch device; default: the accelerator if there is one")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the models that are examined")
    margin: float = Field(default=0.01, ge=0, description="the loss one is willing to accept, for verdicts")

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        check_experiments(cls, cls.EXPERIMENTS)

    def subjects(self) -> Sequence[Any]:
        """What is looked at, each in turn: models, tasks; one of nothing where a study has no subjects of its own."""
        return [None]

    def active(self) -> Sequence[Experiment]:
        """The experiments, as this study's options set them up; the list itself unless a study says otherwise."""
        return self.EXPERIMENTS

    def cells(self) -> list[Cell]:
        """The grid, in the order it runs. Reads enough of the sources to refuse bad input and to fingerprint them."""
        return [
            cell
            for subject in self.subjects()
            for experiment in self.active()
            for cell in experiment.cells(self, subject)
        ]

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        """Do one cell: the experiment of its kind does."""
        for experiment in self.active():
            if experiment.kind == cell.kind:
                return experiment.run(self, cell, bench)
        raise InputError(
            f"a cell of kind {cell.kind!r}",
            expected=f"one of {', '.join(experiment.kind for experiment in self.active())}",
            cure="the plan is of another version: run the study again with the same --out",
        )

    def settled(self, records: Records) -> list[tuple[Experiment, list[Settled]]]:
        """The effects of each experiment with their findings; verdicts are given over all of them together."""
        mine = records.where(study=self.kind)
        effects = [(experiment, experiment.effects(mine, self.margin)) for experiment in self.active()]
        flat = [effect for _, found in effects for effect in found]
        check_effects(flat)
        findings = iter(settle(flat, study=self.kind, margin=self.margin, command=self.command))
        return [(experiment, [Settled(effect, next(findings)) for effect in found]) for experiment, found in effects]

    def judge(self, records: Records) -> Findings:
        """The findings that are shown, with their verdicts."""
        pairs = [pair for _, settled in self.settled(records) for pair in settled]
        return Findings(select(pairs), failed=len(records.failed))

    def sections(self, records: Records) -> list[Section]:
        """The study's part of the page; none without anything to show."""
        mine = records.where(study=self.kind)
        lead: list[str] = []
        figures: list[Figure] = []
        tables: list[Table] = []
        for experiment, settled in self.settled(records):
            lead += experiment.lead(mine, settled, self.margin)
            figures += experiment.figures(mine, settled, self.margin)
            tables += experiment.tables(mine, settled, self.margin)
        if not (figures or tables or lead):
            return []
        return [Section(self.kind, self.TITLE, self.QUESTION, " ".join(lead), tuple(figures), tuple(tables))]

    @property
    def command(self) -> str:
        """What a person types to see the study again: the options that are not the usual ones."""
        return command_line(self.kind, self.typed_options())

    def typed_options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as the command line takes them."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in given.items() if name not in _NOT_TYPED}

    @property
    def title(self) -> str:
        """The page's title."""
        return f"deadweight: the {self.kind} study"

    @property
    def subtitle(self) -> str:
        """One line under it: what was looked at."""
        return (self.__doc__ or "").strip().splitlines()[0]

    def close(self) -> None:
        """Let go of what `run` keeps between cells, such as a loaded model."""
        return None

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(study, reason) for parts that could not be planned; the page says so."""
        return []


STUDIES: Registry[type[Study]] = Registry("study", check=lambda it: isinstance(it, type) and issubclass(it, Study))

__all__ = ["STUDIES", "Study"]
