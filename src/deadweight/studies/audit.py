"""The audit: the four studies together, at a size of minutes, on embedded defaults or on a user's own things."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from deadweight.errors import SourceError
from deadweight.lab import Cell, Findings, Outcome, Records, Workbench
from deadweight.loading import check_language
from deadweight.models.embedded import SMOLLM2
from deadweight.report import Section
from deadweight.studies.attention.study import AttentionStudy
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.remedy import command_line
from deadweight.studies.frame.study import Study
from deadweight.studies.icl.study import IclStudy
from deadweight.studies.mlp.cut_language import CutLanguage
from deadweight.studies.mlp.study import MlpStudy

_LANGUAGE = f"embedded:{SMOLLM2}"
_IMAGES = "embedded:digits"
_ALL = ("mlp", "depth", "icl", "attention")
_LEFT_OUT = {
    "mlp": "no vision model or images were named; --studies mlp adds it, on small ViTs that are trained",
    "depth": "no vision model or images were named; --studies depth adds it, on a small ViT that is trained",
    "icl": "no language model or tasks were named; --studies icl adds it, on SmolLM2-135M and embedded tasks",
    "attention": "it looks at no model that was named; --studies attention adds it",
}
_TRAINED = "the baseline of the mlp study"  # stands for its key until the cells are planned


class AuditStudy(Study):
    """What these transformers carry but do not use: parameters, layers, demonstrations, joules."""

    kind: ClassVar[str] = "audit"

    vision: str | None = Field(default=None, description="a vision model to examine; without it small ViTs are trained")
    images: str = Field(default=_IMAGES, description="labelled images")
    language: str = Field(default=_LANGUAGE, description="a causal language model to examine")
    tasks: tuple[str, ...] = Field(default=(), description="classification tasks; default: the embedded ones")

    studies: tuple[Literal["mlp", "depth", "icl", "attention"], ...] | None = Field(
        default=None,
        min_length=1,
        description="which of the four to run; default: those that look at what is named, all four where nothing is",
    )

    _skipped: list[tuple[str, str]] = PrivateAttr(default_factory=list)
    _parts: dict[str, Study] = PrivateAttr(default_factory=dict)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The studies that run: as asked, or those that look at what was named; all four where nothing was."""
        if self.studies is not None:
            return self.studies
        pictures = self.vision is not None or self.images != _IMAGES
        texts = self.language != _LANGUAGE or bool(self.tasks)
        if pictures == texts:
            return ("mlp", "depth", "icl", *(() if pictures else ("attention",)))
        return ("mlp", "depth") if pictures else ("icl",)

    @property
    def title(self) -> str:
        return "What is dead weight here?"

    @property
    def subtitle(self) -> str:
        looked_at = {
            self.vision or f"a small ViT trained on {self.images}": "mlp" in self.chosen or "depth" in self.chosen,
            self.language: "icl" in self.chosen or self._cuts_language,
            "eight attention mechanisms in a small GPT-2": "attention" in self.chosen,
        }
        return "; ".join(what for what, asked in looked_at.items() if asked)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        told = [] if self.studies is not None else [(name, _LEFT_OUT[name]) for name in _ALL if name not in self.chosen]
        if told and self._cuts_language:
            told = [(name, reason) for name, reason in told if name != "mlp"]
        return [*self._skipped, *told]

    @property
    def _cuts_language(self) -> bool:
        """Whether the MLPs of a language model of one's own are cut: the default's take minutes, and are known."""
        return self.language != _LANGUAGE and (self.studies is None or "mlp" in self.studies)

    def _common(self) -> dict[str, Any]:
        names = ("seed", "limit", "device", "dtype", "margin")
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}

    def parts(self) -> dict[str, Study]:
        """The studies, with the audit's settings and this one's options."""
        if not self._parts:
            common = self._common()
            tasks = {"tasks": self.tasks} if self.tasks else {}
            trained = None if self.vision else _TRAINED
            self._parts |= {
                "mlp": _sized(MlpStudy.for_audit(), images=self.images, vision=self.vision, **common),
                "depth": DepthStudy(images=self.images, vision=self.vision, model_cell=trained, **common),
                "icl": _sized(IclStudy.for_audit(), language=self.language, **tasks, **common),
                "attention": _sized(AttentionStudy.for_audit(), **common),
            }
        return self._parts

    def cells(self) -> list[Cell]:
        parts = self.parts()
        self._skipped.clear()
        plan: dict[str, list[Cell]] = {}
        chosen = self.chosen
        if "mlp" in chosen or ("depth" in chosen and self.vision is None):
            plan["mlp"] = parts["mlp"].cells()
        if "depth" in chosen:
            if self.vision is None:
                trained = next(c for c in plan["mlp"] if c.kind == "train" and c.params["variant"] == "baseline")
                parts["depth"] = _sized(parts["depth"], model_cell=trained.key)
                if "mlp" not in chosen:
                    plan["mlp"] = [trained]
            plan["depth"] = parts["depth"].cells()
        if self._cuts_language:
            own = _sized(MlpStudy(language=self.language), **self._common())
            plan["mlp"] = [*plan.get("mlp", []), *CutLanguage().cells(own, None)]
        if "icl" in chosen:
            plan["icl"] = self._language_cells(parts["icl"])
        if "attention" in chosen:
            plan["attention"] = parts["attention"].cells()
        return [cell for cells in plan.values() for cell in cells]

    def _language_cells(self, icl: Study) -> list[Cell]:
        """The icl cells; none, with the reason told, where the embedded default is not installed."""
        try:
            check_language(self.language)
        except SourceError as problem:
            if self.language != _LANGUAGE:
                raise
            self._skipped.append(("icl", f"{problem.given}; {problem.cure}"))
            return []
        return icl.cells()

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        if cell.study != "icl":
            self.parts()["icl"].close()
        return self.parts()[cell.study].run(cell, bench)

    def judge(self, records: Records) -> Findings:
        """The findings of the four studies, each judged by itself."""
        return Findings(
            [
                dataclasses.replace(finding, command=self._command(name))
                for name, part in self.parts().items()
                if len(records.where(study=name))
                for finding in part.judge(records)
            ],
            failed=len(records.failed),
        )

    def _command(self, study: str) -> str:
        """What shows a study's findings again: the study itself, or the audit where only it has the model."""
        examines_own = self.vision is None and study == "depth"
        if not examines_own and not (study == "mlp" and self.language != _LANGUAGE):
            return self.parts()[study].command
        options = self.model_dump(exclude={"studies"}, exclude_defaults=True, mode="json")
        return command_line("audit", {"studies": study, **options})

    def sections(self, records: Records) -> list[Section]:
        return [
            section
            for name, part in self.parts().items()
            if len(records.where(study=name))
            for section in part.sections(records)
        ]

    def close(self) -> None:
        for part in self._parts.values():
            part.close()


def _sized(study: Study, **options: Any) -> Study:
    """`study` with some options changed, checked anew."""
    given = {name: value for name, value in options.items() if value is not None}
    return type(study)(**{**study.model_dump(exclude_unset=True), **given})
