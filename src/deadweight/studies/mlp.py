"""The mlp study (arXiv 2512.01059): how much of the MLPs can be shared or narrowed without losing accuracy?"""

from __future__ import annotations

import statistics
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, load_images
from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Json, Outcome, Records, Workbench
from deadweight.meters import count
from deadweight.meters.clock import Stopwatch
from deadweight.models import model_source, torch_dtype, transform
from deadweight.probes.model_facts import fingerprint
from deadweight.report import Section
from deadweight.studies import mlp_language, mlp_page, mlp_verdicts
from deadweight.studies.answers import loaded, to_bits
from deadweight.studies.mlp_cut import CALIBRATION, cut_and_refit
from deadweight.studies.mlp_models import Cuts, Shape, build_variant, check_trainable, fresh, preparation
from deadweight.studies.study import Study, command_line
from deadweight.surgery import save
from deadweight.training import Feed, Recipe, evaluate, remove_checkpoints, suitable_threads, train

Variant = Literal["baseline", "grouped", "shallow", "thin"]


class MlpStudy(Study):
    """What the MLPs of a vision transformer carry: shared between blocks, cut to half their width, or left alone."""

    kind: ClassVar[str] = "mlp"
    version: ClassVar[int] = 2

    images: str = Field(default="embedded:digits", description="source of labelled images")
    vision: str | None = Field(default=None, description="a trained model to examine instead of training variants")
    language: str | None = Field(default=None, description="a causal language model to examine instead")
    text: str = Field(default="embedded:stdlib", description="text it is refitted and measured on")
    model: str | None = Field(default=None, description="architecture to train (timm:NAME); default: a small ViT")
    variants: tuple[Variant, ...] = Field(default=("baseline", "grouped", "shallow"), description="models to compare")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), description="one run of every variant for each")
    epochs: int = Field(default=9, gt=0, description="passes over the training images")
    based_on: Literal["mini", "paper"] = Field(default="mini", description="dw.Recipe.mini() or dw.Recipe.paper()")
    recipe: dict[str, Any] = Field(default_factory=dict, description="what differs from it, in settings of dw.Recipe")
    image_size: int | None = Field(
        default=None, gt=0, description="pixels a side; default: the images' own, 32 at most"
    )
    workers: int = Field(default=0, ge=0, description="processes that read and augment pictures")
    trackers: tuple[str, ...] = Field(default=(), description="where curves go as they grow, e.g. tensorboard")
    patch_size: int | None = Field(default=None, gt=0, description="of the small ViT; default: at most 4 × 4 patches")
    dim: int = Field(default=48, gt=0, description="width of the small ViT")
    depth: int = Field(default=6, gt=0, description="blocks of the small ViT")
    heads: int = Field(default=4, gt=0, description="attention heads of the small ViT")
    size: int = Field(default=2, gt=1, description="blocks that share an MLP in the grouped variant")
    pattern: str = Field(default="adjacent", description="which blocks share: adjacent, strided or mirrored")
    scale: float = Field(default=2**-0.5, gt=0, description="of the weights of shared MLPs at the start")
    keep: float = Field(default=0.5, gt=0, le=1, description="share of hidden units in the shallow and thin variants")

    _data: ImageData | None = PrivateAttr(default=None)
    _vision: nn.Module | None = PrivateAttr(default=None)

    @classmethod
    def for_audit(cls) -> MlpStudy:
        """The settings of the audit: three variants × five seeds on 8 × 8 pictures in about a minute."""
        return cls(patch_size=4)

    @model_validator(mode="after")
    def _sensible(self) -> MlpStudy:
        if len(set(self.variants)) < len(self.variants) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("variants and seeds must each be listed once")
        if not self.seeds or "baseline" not in self.variants:
            raise ValueError("at least one seed and the baseline are needed to compare with")
        self._recipe(0)
        return self

    def _recipe(self, seed: int) -> Recipe:
        start = Recipe.mini if self.based_on == "mini" else Recipe.paper
        usual = 1 if self.based_on == "mini" else 5
        settings: dict[str, Any] = {"warmup_epochs": min(usual, self.epochs - 1), **self.recipe}
        try:
            return start(epochs=self.epochs, seed=seed, **settings)
        except TypeError as problem:
            raise InputError(
                f"recipe: {problem}", expected="settings of dw.Recipe, without epochs and seed"
            ) from problem

    def cells(self) -> list[Cell]:
        brought = [self._cut_cell(self.vision)] if self.vision is not None else []
        if self.language is not None:
            brought.append(mlp_language.cell_of(self.language, self.text, self.dtype, self.version, self.limit))
        if brought:
            return brought
        check_trainable(self.model)
        data = self._pictures()
        shape: dict[str, Json] = {
            "images": self.images, "limit": self.limit, "model": self.model, "patch_size": self.patch_size,
            "dim": self.dim, "depth": self.depth, "heads": self.heads, "size": self.size, "pattern": self.pattern,
            "scale": self.scale, "keep": self.keep, "image_size": self.image_size,
        }  # fmt: skip
        common: dict[str, Any] = {"sources": {"images": data.fingerprint}, "version": self.version}
        work: dict[str, Json] = {"epochs": self.epochs, "based_on": self.based_on, "recipe": dict(self.recipe)}
        each = len(data.train) * self.epochs / 2500
        training: dict[str, Any] = {**common, "seconds": each, "spread": True}
        grid = [
            Cell(self.kind, "train", {"variant": name, "seed": seed, **shape, **work}, **training)
            for seed in (self.seed + offset for offset in self.seeds)
            for name in self.variants
        ]
        timing = {"variants": list(self.variants), "seed": self.seed, **shape}
        return [*grid, Cell(self.kind, "time", timing, exclusive=True, seconds=4, **common)]

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        if cell.kind == "cut":
            return self._cut(bench)
        if cell.kind == mlp_language.KIND:
            return mlp_language.cut_language(cell, bench)
        return self._train(cell, bench) if cell.kind == "train" else self._time(cell, bench)

    def findings(self, records: Records) -> list[Finding]:
        return mlp_verdicts.findings(records.where(study=self.kind), margin=self.margin, command=self._command)

    def sections(self, records: Records) -> list[Section]:
        return mlp_page.sections(records.where(study=self.kind), margin=self.margin)

    def close(self) -> None:
        self._data = self._vision = None

    @property
    def _command(self) -> str:
        return command_line(
            "mlp", {"images": self.images, "vision": self.vision, "language": self.language, "limit": self.limit}
        )

    def _pictures(self) -> ImageData:
        if self._data is None:
            prepare = transform(self._examined()) if self.vision is not None else None
            if prepare is None and self.image_size is not None:
                prepare = preparation(self.model, self.image_size)
            self._data = load_images(self.images, limit=self.limit, transform=prepare)
        return self._data

    def _variant(self, name: str, seed: int) -> nn.Module:
        shape = Shape(self.patch_size, self.dim, self.depth, self.heads)
        cuts = Cuts(self.size, self.pattern, self.scale, self.keep)
        return build_variant(name, lambda **changes: fresh(self.model, shape, self._pictures(), seed, **changes), cuts)

    def _train(self, cell: Cell, bench: Workbench) -> Outcome:
        data, seed = self._pictures(), int(cell.params["seed"])
        model = self._variant(str(cell.params["variant"]), seed)
        picture, _ = data.validation[0]
        counts = count(model, picture[None])
        watch = Stopwatch(torch.device(bench.device))
        resumed = (bench.folder / "checkpoint").exists()
        with suitable_threads(model, bench.device) as threads:
            watch.start()
            curves = train(
                model,
                data,
                self._recipe(seed),
                folder=bench.folder / "checkpoint",
                note=bench.note,
                device=bench.device,
                workers=self.workers,
                trackers=self.trackers,
                tracker_folder=bench.folder,
            )
            watch.stop()
            scores = evaluate(model, Feed(data.validation, torch.device(bench.device)))
        if bench.leads:
            curves.write(bench.folder / "curves.parquet")
            save(model.cpu(), bench.folder / "model")
            remove_checkpoints(bench.folder / "checkpoint")
        result: dict[str, Json] = {
            "top1": curves.top1[-1],
            "top5": curves.top5[-1],
            "peak_epoch": curves.peak_epoch,
            "degradation": curves.degradation,
            "n": len(data.validation),
            "parameters": counts.parameters,
            "unique_mlps": counts.unique_mlps,
            "macs": counts.macs,
            "macs_linear": counts.macs_linear,
            "curves": curves.as_json(),
            "correct": to_bits(scores.correct),
        }
        measured: dict[str, Json] = {"training_seconds": watch.seconds}
        if not resumed:  # else part of the images were seen in another process's time
            measured["training_images_per_second"] = len(data.train) * self.epochs / watch.seconds
        return Outcome(result, measured, {"threads": threads})

    def _time(self, cell: Cell, bench: Workbench) -> Outcome:
        """Images a second of a forward pass, the variants in turn, so that what slows the machine slows all alike.

        A round gives each variant four turns and keeps the fastest: whatever else runs can only add time.
        """
        models = {name: self._variant(name, self.seed).eval().to(bench.device) for name in self.variants}
        picture, _ = self._pictures().validation[0]
        batch = 128 if picture.numel() <= 4096 else 16
        generator = torch.Generator().manual_seed(self.seed)
        images = torch.randn(batch, *picture.shape, generator=generator).to(bench.device)
        speeds: dict[str, list[float]] = {name: [] for name in models}
        rounds, turns, watch = 20, 4, Stopwatch(torch.device(bench.device))
        with torch.inference_mode(), suitable_threads(models["baseline"], bench.device) as threads:
            for number in range(-1, rounds):
                fastest = dict.fromkeys(models, float("inf"))
                for name in [name for _ in range(turns) for name in models]:
                    watch.start()
                    models[name](images)
                    watch.stop()
                    fastest[name] = min(fastest[name], watch.seconds)
                for name, seconds in fastest.items():
                    if number >= 0:  # the first round warms up
                        speeds[name].append(batch / seconds)
                bench.note("images a second", (number + 2) / (rounds + 1))
        middle = {name: statistics.median(values) for name, values in speeds.items()}
        result: dict[str, Json] = {"batch": batch, "rounds": rounds}
        return Outcome(result, {"images_per_second": middle, "rounds": speeds}, {"threads": threads})

    def _examined(self) -> nn.Module:
        if self._vision is None:
            assert self.vision is not None  # only asked for with one
            model = loaded(self.vision, self.seed)
            parts = anatomy(model)
            if parts.kind != "vision" or parts.head is None or isinstance(parts.head, nn.Identity):
                raise InputError(
                    f"{self.vision} makes no predictions about images",
                    expected="a vision transformer with a classification head",
                    cure="`deadweight depth` examines models without a head",
                )
            self._vision = model
        return self._vision

    def _cut_cell(self, vision: str) -> Cell:
        data = self._pictures()
        source = model_source(vision)
        params: dict[str, Json] = {
            "vision": vision, "images": self.images, "limit": self.limit, "dtype": self.dtype,
            "trained": source.scheme != "embedded" and source.flag("pretrained", True), "calibration": CALIBRATION,
        }  # fmt: skip
        sources = {"vision": fingerprint(self._examined()), "images": data.fingerprint}
        seconds = 2 + len(data.validation) / 20
        return Cell(self.kind, "cut", params, sources=sources, version=self.version, seconds=seconds)

    def _cut(self, bench: Workbench) -> Outcome:
        """A user's own model, cut two ways, refitted and not trained."""
        intact = self._examined().to(bench.device, torch_dtype(self.dtype))
        return cut_and_refit(intact, self._pictures(), bench.note)
