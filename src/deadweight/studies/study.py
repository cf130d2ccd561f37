"""What a study is: options, a grid of cells, what each cell does, and what follows from the records."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from deadweight.lab import Cell, Finding, Findings, Outcome, Records, Workbench, settle
from deadweight.registry import Registry
from deadweight.report import Section


class Study(BaseModel, ABC):
    """A study; its fields are its options, the same words in Python, on the command line and in YAML.

    ``run`` must put into ``result`` only what follows from the options and the seed. ``findings`` and ``sections``
    are functions of the records alone, so that a page can be rebuilt without computing anything again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    seed: int = Field(default=0, description="everything random follows from it")
    limit: int | None = Field(default=None, gt=0, description="use at most so many items (images, test items)")
    device: str | None = Field(default=None, description="torch device; default: the accelerator if there is one")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the models that are examined")
    margin: float = Field(default=0.01, ge=0, description="the loss one is willing to accept, for verdicts")

    @abstractmethod
    def cells(self) -> list[Cell]:
        """The grid, in the order it runs. Reads enough of the sources to refuse bad input and to fingerprint them."""

    @abstractmethod
    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        """Do one cell."""

    @abstractmethod
    def findings(self, records: Records) -> list[Finding]:
        """What follows from the records, verdicts not yet given."""

    @abstractmethod
    def sections(self, records: Records) -> list[Section]:
        """The charts and tables of the page."""

    def judge(self, records: Records) -> Findings:
        """The findings with their verdicts."""
        return Findings(settle(self.findings(records)), failed=len(records.failed))

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


def command_line(verb: str, options: Mapping[str, Any]) -> str:
    """What a person types, quoted for a shell; options that are None are left out, lists repeat their flag."""
    words = ["deadweight", verb]
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [] if one is None else [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)


STUDIES: Registry[type[Study]] = Registry("study", check=lambda it: isinstance(it, type) and issubclass(it, Study))
for _name in ("mlp", "depth", "icl", "attention", "audit"):
    STUDIES.add(_name, f"deadweight.studies.{_name}:{_name.title()}Study")
