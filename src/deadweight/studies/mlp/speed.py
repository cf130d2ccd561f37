"""How fast the variants are: images per second of a forward pass, all of them in every round."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any, ClassVar, TypedDict

import torch

from deadweight.lab import Cell, Outcome, Records, Workbench
from deadweight.meters.interleaved import interleaved
from deadweight.statistics import ratio
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.quantity import SPEED
from deadweight.studies.mlp.trained_variants import shape_of
from deadweight.training import suitable_threads

ROUNDS, TURNS = 20, 4  # a round gives each variant four turns and keeps the fastest: what else runs only adds time


class Timing(TypedDict):
    """The result of a timing cell; the seconds are measured and stand apart."""

    batch: int
    rounds: int


class Speed(Experiment):
    """Times the variants in turn, so that what slows the machine slows all alike."""

    kind: ClassVar[str] = "time"
    bytes_per_cell: ClassVar[int] = 3_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        if not study.trains:
            return []
        params = {"variants": list(study.variants), "seed": study.seed, **shape_of(study)}
        sources = {"images": study.pictures().fingerprint}
        return [Cell(study.kind, self.kind, params, (), sources, study.version, exclusive=True, seconds=4)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        models = {name: study.variant(name, study.seed).eval().to(bench.device) for name in study.variants}
        picture, _ = study.pictures().validation[0]
        batch = 128 if picture.numel() <= 4096 else 16
        generator = torch.Generator().manual_seed(study.seed)
        images = torch.randn(batch, *picture.shape, generator=generator).to(bench.device)
        with torch.inference_mode(), suitable_threads(models["baseline"], bench.device) as threads:
            seconds = interleaved(
                {name: partial(model, images) for name, model in models.items()},
                rounds=ROUNDS, turns=TURNS, device=bench.device,
                note=lambda done: bench.note("images per second", done),
            )  # fmt: skip
        speeds = {name: [batch / one for one in values] for name, values in seconds.items()}
        middle = {name: statistics.median(values) for name, values in speeds.items()}
        result: Timing = {"batch": batch, "rounds": ROUNDS}
        return Outcome(dict(result), {"images_per_second": middle, "rounds": speeds}, {"threads": threads})

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            Effect(
                f"{name}-speed", "", "", SPEED, (estimate := ratio(speeds, record.measured["rounds"]["baseline"])),
                evidence=(record.key,),
                statement=f"The {name} model classifies images at {estimate.value:.2f} times the baseline's speed on "
                "this machine.",
            )
            for record in self.own(records)
            for name, speeds in record.measured["rounds"].items()
            if name != "baseline" and "baseline" in record.measured["rounds"]
        ]  # fmt: skip

    def figures(self, records: Records, settled: Any, margin: float) -> list[Any]:
        return []


__all__ = ["Speed", "Timing"]
