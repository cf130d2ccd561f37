"""The profile of the layers: similarity, scrambling, readouts, class collapse; and the useful depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
import torch
from torch import nn

from deadweight.data import ImageSet
from deadweight.evaluation import batches, from_bits, to_bits
from deadweight.evaluation.classification import Batch
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.probes import DepthProfile, profile
from deadweight.report import Figure, Table
from deadweight.report.wording import quantity as written
from deadweight.statistics import Estimate, UsefulDepth, useful_depth
from deadweight.studies.depth.cells import cell_about, of_model
from deadweight.studies.depth.profile_figures import profile_figures, profile_table
from deadweight.studies.depth.shards import FILE, merged, part, shard_cells
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, model_name, saved_source
from deadweight.studies.frame.quantity import ACCURACY, COSINE, LENGTH_RATIO
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled

STUDENT = "Student's t over the bootstrap's standard error, exact for shares"


class ProfileResult(TypedDict):
    """The result of a profile cell; NaN is None. depth: blocks; reads: what the head reads; n: images; table,
    intervals: rows; interval_rule, readout_correct (bits per layer 0 … depth): of later versions;
    position_dominance: per patch."""

    depth: int
    reads: str
    n: int
    table: list[Json]
    intervals: list[Json]
    interval_rule: NotRequired[str]
    readout_loss: list[Json] | None
    readout_correct: list[str] | None
    phases: list[Json]
    missing: list[Json]
    onset: int | None
    regime: Json
    position_dominance: list[float | None]


class Profile(Experiment):
    """One streaming pass over the held-out images; in shards where the study asks for them."""

    kind: ClassVar[str] = "profile"
    bytes_per_cell: ClassVar[int] = 2_900_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        if subject is None:
            return []
        whole = cell_about(study, self.kind, subject, effort=0.2)
        shards = min(study.shards, -(-len(study.models.images(subject).validation) // study.batch_size))
        return shard_cells(whole, shards) if shards > 1 else [whole]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        return profiled(model, data.validation, study.batch_size, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [effect for record in self.own(records) for effect in _effects(record, margin)]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        own = self.own(records)
        if len(own) != 1:
            return []
        useful = [pair.effect.statement for pair in settled if pair.effect.id == "useful"]
        return useful or ["The profile shows how the tokens of an image move from layer to layer."]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        own = self.own(records)
        return [of_model(figure, record, len(own)) for record in own for figure in profile_figures(record)]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        own = self.own(records)
        return [profile_table(record, model_name(record.cell) if len(own) > 1 else "") for record in own]


class Shard(Experiment):
    """A part of the images; planned by :class:`Profile`, which merges them."""

    kind: ClassVar[str] = "shard"
    bytes_per_cell: ClassVar[int] = 2_900_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        return []

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        model, data = study.loaded(cell, bench)
        return profiled(model, data.validation, study.batch_size, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return []


def profiled(model: nn.Module, images: ImageSet, size: int, bench: Workbench) -> Outcome:
    """The profile of the images, of a shard of them, or merged of shards; saved beside its record."""
    if bench.cell.kind == "shard":
        images = part(images, size, bench.cell.params["shard"], bench.cell.params["shards"])
    if bench.cell.kind == "profile" and bench.cell.params.get("shards"):
        found = merged(bench.cell, bench)
    else:
        found = profile(model, _with_progress(batches(images, size), len(images), size, bench))
    bench.folder.mkdir(parents=True, exist_ok=True)
    found.save(bench.folder / FILE)
    if bench.cell.kind == "shard":
        return Outcome({"n": len(images)}, context={"notes": list(found.notes)})
    found.table().to_parquet(bench.folder / "table.parquet")
    return Outcome(dict(profile_result(found)), context={"notes": list(found.notes)})


def profile_result(found: DepthProfile) -> ProfileResult:
    """What a profile cell's record holds."""
    correct = found.correct()
    labelled = bool(correct.shape[1])
    return {
        "depth": found.facts.depth,
        "reads": found.facts.reads,
        "n": found.images.images,
        "table": _rows(found.table().to_dict("records")),
        "intervals": _rows(found.intervals().to_dict("records")),
        "interval_rule": STUDENT,
        "readout_loss": _rows(found.readout_loss().to_dict("records")) if labelled else None,
        "readout_correct": [to_bits(torch.from_numpy(row)) for row in correct[:-1]] if labelled else None,
        "phases": _rows(found.phases().table().to_dict("records")) if found.images.images else [],
        "missing": list(found.phases().missing) if found.images.images else [],
        "onset": found.tradeoff_onset(),
        "regime": found.regime(),
        "position_dominance": [value if math.isfinite(value) else None for value in found.position_dominance()],
    }


def useful_depth_of(record: Record, margin: float) -> UsefulDepth | None:
    """From which layer on the readout is within the margin of the last block's; None where the record holds no bits."""
    rows = record.result.get("readout_correct")
    return useful_depth([from_bits(row) for row in rows], margin) if rows else None


def _effects(record: Record, margin: float) -> list[Effect]:
    """Useful depth, similarity and the weight of the positional encoding: described, not judged."""
    result, name = record.result, model_name(record.cell)
    effects: list[Effect] = []
    found = useful_depth_of(record, margin)
    if found is not None:
        effects.append(_useful(record, found, margin))
    rows = {(row["column"], row["layer"]): row for row in result["intervals"]}
    first, last = rows.get(("raw_similarity", 0)), rows.get(("raw_similarity", result["depth"]))
    if first and last:
        way = "grow more alike" if last["value"] > first["value"] else "grow apart"
        statement = (
            f"The patches of an image {way} on their way through the blocks: their mean cosine goes from "
            f"{first['value']:.2f} before the first block to {last['value']:.2f} after the last."
        )
        estimate = _described(last, result)
        effects.append(Effect("similarity", name, "", COSINE, estimate, evidence=(record.key,), statement=statement))
    encoding = rows.get(("pe_dominance", 0))
    if encoding:
        statement = (
            f"The positional encoding is {encoding['value']:.2f} times as long as the patch embeddings it is added to."
        )
        estimate = _described(encoding, result)
        effects.append(
            Effect("positions", name, "", LENGTH_RATIO, estimate, evidence=(record.key,), statement=statement)
        )
    return effects


def _useful(record: Record, found: UsefulDepth, margin: float) -> Effect:
    depth, layer, accepted = record.result["depth"], found.layer, written(margin, "accuracy")
    if layer >= depth:
        statement = (
            f"The classes become easier to read off up to the last of the {depth} blocks: a nearest-class-mean readout "
            f"is not shown to be within {accepted} of its accuracy there after any earlier one."
        )
        estimate = Estimate(0.0, None, None, record.result["n"], None, 0.0, "the last block itself")
        remedy = None
    else:
        where = f"after block {layer} of {depth}" if layer else "before the first block"
        statement = (
            f"The classes can be read off {where} as well as at the end: a nearest-class-mean readout there, and after "
            f"every later block, is within {accepted} of its accuracy after the last block."
        )
        estimate = found.losses[layer]
        sentence = f"Leave the model after block {layer} with a readout of its own: `--experiments exit` measures that."
        remedy = Remedy(saved_source(record.cell), "", {}, sentence) if layer else None
    return Effect(
        "useful", model_name(record.cell), "", ACCURACY, estimate, evidence=(record.key,), statement=statement,
        remedy=remedy,
    )  # fmt: skip


def _described(row: Json, result: Json) -> Estimate:
    """A mean over images, as `DepthProfile.intervals` has it; records without a rule hold percentiles."""
    n = int(row["n"])
    if row["low"] is None:
        return Estimate(row["value"], None, None, n, None, 0.0, f"no interval: {n} images are too few")
    if result.get("interval_rule") != STUDENT:
        return Estimate(row["value"], row["low"], row["high"], n, None, 0.0, f"bootstrap percentiles over {n} images")
    return Estimate(row["value"], row["low"], row["high"], n, None)


def _with_progress(stream: Iterator[Batch], items: int, size: int, bench: Workbench) -> Iterator[Batch]:
    for number, batch in enumerate(stream):
        bench.note("profile", min(1.0, number * size / max(items, 1)))
        yield batch


def _rows(records: Sequence[dict[Any, Any]]) -> list[Json]:
    def plain(value: Any) -> Json:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return int(value) if isinstance(value, np.integer) else value

    return [{str(name): plain(value) for name, value in row.items()} for row in records]


__all__ = ["Profile", "ProfileResult", "Shard", "profile_result", "profiled", "useful_depth_of"]
