"""The depth study (arXiv 2511.21635): which layers still do something for the task?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from deadweight.data import load_text
from deadweight.lab import Cell, Finding, Json, Outcome, Records, Workbench
from deadweight.models import check_language, load_lm, torch_dtype
from deadweight.probes import DepthProfile
from deadweight.probes.model_facts import fingerprint
from deadweight.report import Section
from deadweight.studies import depth_cells, depth_language, depth_page, depth_verdicts
from deadweight.studies.depth_experiments import leave_early, positions, shorten, without_cls
from deadweight.studies.depth_shards import FILE, shard_cells
from deadweight.studies.depth_subjects import Shelf, Subject, subject_of
from deadweight.studies.icl_cells import digest
from deadweight.studies.mlp import MlpStudy
from deadweight.studies.study import Study, command_line

Experiment = Literal["positions", "cls", "shorten", "exit"]
# Work beside leaving out each block in turn, as mini-2511.21635 measured it; the longest of its models.
_EFFORT: dict[Experiment, float] = {"positions": 1.5, "cls": 0.2, "shorten": 3.0, "exit": 0.5}


class DepthStudy(Study):
    """How representations move through the layers of a vision transformer, and what each block is worth."""

    kind: ClassVar[str] = "depth"
    version: ClassVar[int] = 1

    vision: str | None = Field(default=None, description="source of a vision transformer, e.g. file:FOLDER")
    compare: tuple[str, ...] = Field(default=(), description="more vision transformers, shown side by side")
    small: tuple[int, ...] = Field(default=(), description="depths of small ViTs to train on the images and compare")
    images: str = Field(default="embedded:digits", description="source of labelled images; the held-out part is used")
    experiments: tuple[Experiment, ...] = Field(
        default=(), description="what to try beside leaving blocks out: positions, cls, shorten, exit"
    )
    language: str | None = Field(default=None, description="a causal language model whose blocks are left out in turn")
    text: str = Field(default="embedded:stdlib", description="what the language model predicts: text:PATH")
    sequences: int = Field(default=16, gt=1, description="held-out sequences of text")
    length: int = Field(default=128, gt=1, description="tokens of a sequence")
    epochs: int = Field(default=9, gt=0, description="passes over the training images, of the small ViTs")
    batch_size: int = Field(default=64, gt=0, description="images a forward pass")
    shards: int = Field(default=1, gt=0, description="parts of the images, profiled side by side and merged")
    model_cell: str | None = Field(default=None, description="key of the cell whose folder holds the model to examine")
    trained: bool = Field(default=True, description="untrained weights are described but get no verdicts")

    _shelf: Shelf | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_model(self) -> DepthStudy:
        ways = [self.vision is not None, self.model_cell is not None, bool(self.small)]
        if sum(ways) > 1 or not (any(ways) or self.language) or (self.compare and self.vision is None):
            raise ValueError(
                "name the model with vision (a source string, e.g. file:FOLDER) and others to compare it with, give "
                "depths of small ViTs to train, or name a language model"
            )
        return self

    @property
    def judged(self) -> bool:
        """Whether the weights are trained, as far as the options and the source tell."""
        return self.trained and (self.vision is None or Subject(self.vision).trained)

    def cells(self) -> list[Cell]:
        training = {depth: _train(self, depth).cells()[0] for depth in self.small}
        subjects = [Subject(source) for source in (self.vision, *self.compare) if source is not None]
        subjects += [Subject(None, self.model_cell)] if self.model_cell is not None else []
        subjects += [Subject(None, cell.key, depth) for depth, cell in training.items()]
        looked = [cell for subject in subjects for cell in self._of(subject)]
        return [*training.values(), *looked, *(self._language_cells() if self.language is not None else [])]

    def _of(self, subject: Subject) -> list[Cell]:
        """The cells about one model."""
        sources: dict[str, str] = {}
        needs: tuple[str, ...] = ()
        if subject.source is not None:
            sources["vision"] = fingerprint(self._kept.model(subject))
        else:
            assert subject.cell is not None  # one of the two is there
            needs = (subject.cell,)
        data = self._kept.images(subject)
        sources["images"] = data.fingerprint
        shared: dict[str, Json] = {
            **subject.params, "images": self.images, "limit": self.limit, "batch_size": self.batch_size,
            "dtype": self.dtype, "trained": self.trained and subject.trained,
        }  # fmt: skip
        common: dict[str, Any] = {"sources": sources, "version": self.version}
        each = 2 + len(data.validation) / 20
        whole = Cell(self.kind, "profile", shared, needs, seconds=2 + len(data.validation) / 100, **common)
        shards = min(self.shards, -(-len(data.validation) // self.batch_size))
        first = shard_cells(whole, shards) if shards > 1 else [whole]
        cells = [*first, Cell(self.kind, "skip", shared, needs, seconds=each, **common)]
        after = (*needs, first[-1].key)
        for kind in self.experiments:
            more: dict[str, Json] = {"margin": self.margin} if kind == "exit" else {}
            wanted = needs if kind == "positions" else after
            alone, took = kind == "exit", _EFFORT[kind] * each
            cells.append(Cell(self.kind, kind, {**shared, **more}, wanted, seconds=took, exclusive=alone, **common))
        return cells

    def _language_cells(self) -> list[Cell]:
        assert self.language is not None  # asked before
        source = check_language(self.language)
        params: dict[str, Json] = {"language": self.language, "text": self.text, "sequences": self.sequences,
                                   "length": self.length, "dtype": self.dtype}  # fmt: skip
        sources = {"language": digest(Path(source.name)) or source.text, "text": load_text(self.text).fingerprint}
        seconds = self.sequences * self.length / 4.0
        return [Cell(self.kind, "language", params, sources=sources, version=depth_language.VERSION, seconds=seconds)]

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        if cell.study != self.kind:
            return _train(self, int(cell.params["depth"])).run(cell, bench)
        if cell.kind == "language":
            lm = load_lm(str(cell.params["language"]), dtype=self.dtype, device=bench.device)
            return depth_language.language(lm, self.text, self.sequences, self.length, bench)
        subject = subject_of(cell)
        model = self._kept.model(subject, bench).to(bench.device, torch_dtype(self.dtype))
        data, size = self._kept.images(subject, bench), self.batch_size
        if cell.kind in ("profile", "shard"):
            return depth_cells.profiled(model, data.validation, size, bench)
        if cell.kind == "skip":
            return depth_cells.skipped(model, data, size, bench)
        if cell.kind == "positions":
            return positions(model, data, size, bench)
        found = DepthProfile.load(bench.folder_of(cell.needs[-1]) / FILE)
        if cell.kind == "cls":
            return without_cls(model, data, size, bench, found)
        if cell.kind == "exit":
            return leave_early(model, data, size, bench, found.useful_depth(float(cell.params["margin"])))
        return shorten(model, data, size, bench, list(found.table()["influence"][1:-1]))

    def findings(self, records: Records) -> list[Finding]:
        return depth_verdicts.findings(records.where(study=self.kind), margin=self.margin, command=self._command)

    def sections(self, records: Records) -> list[Section]:
        return depth_page.sections(records.where(study=self.kind), margin=self.margin)

    def close(self) -> None:
        self._shelf = None

    @property
    def _command(self) -> str:
        if self.model_cell is not None:
            return "deadweight audit"
        options = {"vision": self.vision, "compare": self.compare, "small": self.small, "images": self.images,
                   "language": self.language, "limit": self.limit}  # fmt: skip
        return command_line("depth", options)

    @property
    def _kept(self) -> Shelf:
        if self._shelf is None:
            self._shelf = Shelf(self.images, self.limit, self.seed)
        return self._shelf


def _train(study: DepthStudy, depth: int) -> MlpStudy:
    """The mlp study's own training of a small ViT of that depth."""
    return MlpStudy(images=study.images, limit=study.limit, seed=study.seed, seeds=(0,), variants=("baseline",),
                    depth=depth, epochs=study.epochs, device=study.device)  # fmt: skip
