"""The depth study (arXiv 2511.21635): which layers still do something for the task?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, model_validator
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, ImageSet, load_images
from deadweight.errors import InputError, SurgeryError
from deadweight.lab import Cell, Finding, Json, Outcome, Records, Workbench
from deadweight.models import model_source, torch_dtype, transform
from deadweight.probes import DepthProfile, profile
from deadweight.probes.model_facts import fingerprint
from deadweight.report import Section
from deadweight.studies import depth_page, depth_verdicts
from deadweight.studies.answers import Batch, batches, loaded, predictions, to_bits, yardstick
from deadweight.studies.depth_shards import FILE, merged, part, shard_cells
from deadweight.studies.study import Study, command_line
from deadweight.surgery import drop_blocks


class DepthStudy(Study):
    """How representations move through the layers of a vision transformer, and what each block is worth."""

    kind: ClassVar[str] = "depth"
    version: ClassVar[int] = 1

    vision: str | None = Field(default=None, description="source of a vision transformer, e.g. file:FOLDER")
    images: str = Field(default="embedded:digits", description="source of labelled images; the held-out part is used")
    batch_size: int = Field(default=64, gt=0, description="images a forward pass")
    shards: int = Field(default=1, gt=0, description="parts of the images, profiled side by side and merged")
    model_cell: str | None = Field(default=None, description="key of the cell whose folder holds the model to examine")
    trained: bool = Field(default=True, description="untrained weights are described but get no verdicts")

    _model: nn.Module | None = PrivateAttr(default=None)
    _data: ImageData | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_model(self) -> DepthStudy:
        if (self.vision is None) == (self.model_cell is None):
            raise ValueError("name the model with vision (a source string, e.g. file:FOLDER)")
        return self

    @property
    def judged(self) -> bool:
        """Whether the weights are trained, as far as the options and the source tell."""
        if not self.trained or self.vision is None:
            return self.trained
        source = model_source(self.vision)
        return source.scheme != "embedded" and source.flag("pretrained", True)

    def cells(self) -> list[Cell]:
        sources: dict[str, str] = {}
        needs: tuple[str, ...] = ()
        if self.vision is not None:
            sources["vision"] = fingerprint(self._loaded(None))
        else:
            assert self.model_cell is not None  # the validator's
            needs = (self.model_cell,)
        data = self._pictures(None)
        sources["images"] = data.fingerprint
        shared: dict[str, Json] = {
            "vision": self.vision, "images": self.images, "limit": self.limit, "batch_size": self.batch_size,
            "dtype": self.dtype, "trained": self.judged,
        }  # fmt: skip
        common: dict[str, Any] = {"needs": needs, "sources": sources, "version": self.version}
        whole = Cell(self.kind, "profile", shared, seconds=2 + len(data.validation) / 100, **common)
        shards = min(self.shards, -(-len(data.validation) // self.batch_size))
        return [
            *(shard_cells(whole, shards) if shards > 1 else [whole]),
            Cell(self.kind, "skip", shared, seconds=2 + len(data.validation) / 20, **common),
        ]

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        model = self._loaded(bench).to(bench.device, torch_dtype(self.dtype))
        images = self._pictures(bench).validation
        if cell.kind == "shard":
            images = part(images, self.batch_size, cell.params["shard"], cell.params["shards"])
        if cell.kind in ("profile", "shard"):
            return self._profile(model, images, bench)
        return self._skip(model, images, bench)

    def findings(self, records: Records) -> list[Finding]:
        return depth_verdicts.findings(records.where(study=self.kind), margin=self.margin, command=self._command)

    def sections(self, records: Records) -> list[Section]:
        return depth_page.sections(records.where(study=self.kind), margin=self.margin)

    def close(self) -> None:
        self._model = self._data = None

    @property
    def _command(self) -> str:
        if self.vision is None:
            return "deadweight audit"
        return command_line("depth", {"vision": self.vision, "images": self.images, "limit": self.limit})

    def _loaded(self, bench: Workbench | None) -> nn.Module:
        """The model, loaded once; `bench` finds the folder of a model another cell has saved."""
        if self._model is None:
            source = self.vision
            if source is None:
                assert bench is not None  # only run() comes here without a source
                assert self.model_cell is not None  # the validator's
                source = f"file:{bench.folder_of(self.model_cell) / 'model'}"
            model = loaded(source, self.seed)
            found = anatomy(model)
            if found.kind != "vision":
                raise InputError(
                    f"{source} is a language model",
                    expected="a vision transformer",
                    cure="dw.profile(model, batches) takes language models, without the class columns",
                )
            self._model = model
        return self._model

    def _pictures(self, bench: Workbench | None) -> ImageData:
        """The images, prepared as the model wants them; the audit's own model takes them as they are."""
        if self._data is None:
            prepare = transform(self._loaded(bench)) if self.vision is not None else None
            self._data = load_images(self.images, limit=self.limit, transform=prepare)
        return self._data

    def _profile(self, model: nn.Module, images: ImageSet, bench: Workbench) -> Outcome:
        if bench.cell.kind == "profile" and bench.cell.params.get("shards"):
            found = merged(bench.cell, bench)
        else:
            found = profile(model, _told(batches(images, self.batch_size), len(images), self.batch_size, bench))
        bench.folder.mkdir(parents=True, exist_ok=True)
        found.save(bench.folder / FILE)
        if bench.cell.kind == "shard":
            return Outcome({"n": len(images)}, context={"notes": list(found.notes)})
        found.table().to_parquet(bench.folder / "table.parquet")
        return Outcome(profile_result(found), context={"notes": list(found.notes)})

    def _skip(self, model: nn.Module, images: ImageSet, bench: Workbench) -> Outcome:
        parts = anatomy(model)
        if parts.head is None or isinstance(parts.head, nn.Identity):
            return Outcome({"measure": None, "n": len(images), "intact": None, "blocks": []},
                           context={"notes": ["the model has no head: there are no predictions to lose"]})  # fmt: skip
        classes = self._pictures(bench).classes
        intact = yardstick(model, images, classes, self.batch_size)
        notes = list(intact.notes)
        blocks: list[Json] = []
        for block in parts.blocks:
            bench.note(f"without block {block.index + 1} of {parts.depth}", (block.index + 1) / (parts.depth + 1))
            entry: dict[str, Json] = {"block": block.index + 1, "path": block.path, "correct": None}
            try:
                shorter = drop_blocks(model, [block.index])
            except SurgeryError as problem:
                notes.append(f"block {block.index + 1} cannot be removed: {problem.given}")
            else:
                without, _ = predictions(shorter, images, self.batch_size)
                entry["correct"] = to_bits(without.argmax(1) == intact.truth)
            blocks.append(entry)
        result: dict[str, Json] = {
            "measure": intact.measure,
            "n": len(images),
            "works": intact.works,
            "intact": to_bits(intact.right),
            "blocks": blocks,
        }
        return Outcome(result, context={"notes": notes})


def profile_result(found: DepthProfile) -> dict[str, Json]:
    """What a profile cell's record holds: table, intervals, the readout's losses; None for NaN."""
    result: dict[str, Json] = {
        "depth": found.facts.depth,
        "reads": found.facts.reads,
        "n": found.images.images,
        "table": _rows(found.table().to_dict("records")),
        "intervals": _rows(found.intervals().to_dict("records")),
        "readout_loss": None,
    }
    if found.correct().shape[1]:
        result["readout_loss"] = _rows(found.readout_loss().to_dict("records"))
    return result


def _told(stream: Iterator[Batch], items: int, size: int, bench: Workbench) -> Iterator[Batch]:
    for number, batch in enumerate(stream):
        bench.note("profile", min(1.0, number * size / max(items, 1)))
        yield batch


def _rows(records: Sequence[dict[Any, Any]]) -> list[Json]:
    def plain(value: Any) -> Json:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return value

    return [{str(name): plain(value) for name, value in row.items()} for row in records]
