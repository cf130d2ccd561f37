"""The options of the depth study (arXiv 2511.21635) and the list of its experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator
from torch import nn

from deadweight.data import ImageData
from deadweight.lab import Cell, Outcome, Workbench
from deadweight.models import torch_dtype
from deadweight.studies.depth.cls_token import ClsToken
from deadweight.studies.depth.exit import Exit
from deadweight.studies.depth.language import Language
from deadweight.studies.depth.leave_out import LeaveOut
from deadweight.studies.depth.positions import Positions
from deadweight.studies.depth.profile import Profile, Shard
from deadweight.studies.depth.shorten import Shorten
from deadweight.studies.depth.side_by_side import SideBySide
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelCache, ModelRef, model_ref
from deadweight.studies.frame.remedy import command_line
from deadweight.studies.frame.study import Study
from deadweight.studies.mlp.study import MlpStudy
from deadweight.studies.mlp.trained_variants import TrainedVariants

Optional = Literal["positions", "cls", "shorten", "exit"]


class DepthStudy(Study):
    """How representations move through the layers of a vision transformer, and what each block is worth."""

    kind: ClassVar[str] = "depth"
    version: ClassVar[int] = 1
    EXPERIMENTS: ClassVar[tuple[Experiment, ...]] = (
        SideBySide(), LeaveOut(), Profile(), Shard(), Exit(), Shorten(), Positions(), ClsToken(), Language(),
    )  # fmt: skip
    TITLE: ClassVar[str] = "Depth: what each layer does"
    QUESTION: ClassVar[str] = "Which layers still do something for the task?"

    vision: str | None = Field(default=None, description="source of a vision transformer, e.g. file:FOLDER")
    compare: tuple[str, ...] = Field(default=(), description="more vision transformers, shown side by side")
    small: tuple[int, ...] = Field(default=(), description="depths of small ViTs to train on the images and compare")
    images: str = Field(default="embedded:digits", description="source of labelled images; the held-out part is used")
    experiments: tuple[Optional, ...] = Field(
        default=(), description="what to try beside leaving blocks out: positions, cls, shorten, exit"
    )
    language: str | None = Field(default=None, description="a causal language model whose blocks are left out in turn")
    text: str = Field(default="embedded:stdlib", description="what the language model predicts: text:PATH")
    sequences: int = Field(default=16, gt=1, description="held-out sequences of text")
    length: int = Field(default=128, gt=1, description="tokens per sequence")
    epochs: int = Field(default=9, gt=0, description="passes over the training images, of the small ViTs")
    batch_size: int = Field(default=64, gt=0, description="images per forward pass")
    shards: int = Field(default=1, gt=0, description="parts of the images, profiled side by side and merged")
    model_cell: str | None = Field(default=None, description="key of the cell whose folder holds the model to examine")
    trained: bool = Field(default=True, description="untrained weights are described but get no verdicts")

    _models: ModelCache | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_model(self) -> DepthStudy:
        ways = [self.vision is not None, self.model_cell is not None, bool(self.small)]
        if sum(ways) > 1 or not (any(ways) or self.language) or (self.compare and self.vision is None):
            raise ValueError(
                "name the model with vision (a source string, e.g. file:FOLDER) and others to compare it with, give "
                "depths of small ViTs to train, or name a language model"
            )
        return self

    def subjects(self) -> Sequence[ModelRef | None]:
        """The vision models, and None for what is not about one of them (the language model)."""
        refs = [ModelRef(source) for source in (self.vision, *self.compare) if source is not None]
        refs += [ModelRef(None, self.model_cell)] if self.model_cell is not None else []
        refs += [ModelRef(None, cell.key, depth) for depth, cell in self._training().items()]
        return [*refs, None]

    def cells(self) -> list[Cell]:
        return [*self._training().values(), *super().cells()]

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        if cell.study != self.kind:
            return _training_of(self, int(cell.params["depth"])).run(cell, bench)
        return super().run(cell, bench)

    def loaded(self, cell: Cell, bench: Workbench) -> tuple[nn.Module, ImageData]:
        """The vision model a cell is about, where and in what it is to run, and its images."""
        ref = model_ref(cell)
        model = self.models.model(ref, bench).to(bench.device, torch_dtype(self.dtype))
        return model, self.models.images(ref, bench)

    def _training(self) -> dict[int, Cell]:
        return {depth: TrainedVariants().cells(_training_of(self, depth), None)[0] for depth in self.small}

    def close(self) -> None:
        self._models = None

    @property
    def models(self) -> ModelCache:
        """What is loaded, one model at a time."""
        if self._models is None:
            self._models = ModelCache(self.images, self.limit, self.seed)
        return self._models

    @property
    def command(self) -> str:
        if self.model_cell is not None:
            return command_line("audit", {})
        return super().command


def _training_of(study: DepthStudy, depth: int) -> MlpStudy:
    """The mlp study's own training of a small ViT of that depth."""
    return MlpStudy(images=study.images, limit=study.limit, seed=study.seed, seeds=(0,), variants=("baseline",),
                    depth=depth, epochs=study.epochs, device=study.device)  # fmt: skip
