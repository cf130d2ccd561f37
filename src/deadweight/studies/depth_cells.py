"""The two cells every model gets: its profile, and its answers with each block left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, ImageSet
from deadweight.errors import SurgeryError
from deadweight.lab import Json, Outcome, Workbench
from deadweight.probes import DepthProfile, profile
from deadweight.studies.answers import Batch, batches, predictions, to_bits, yardstick
from deadweight.studies.depth_shards import FILE, merged, part
from deadweight.surgery import drop_blocks


def profiled(model: nn.Module, images: ImageSet, size: int, bench: Workbench) -> Outcome:
    """The profile of the images, of a shard of them, or merged of shards; saved beside its record."""
    if bench.cell.kind == "shard":
        images = part(images, size, bench.cell.params["shard"], bench.cell.params["shards"])
    if bench.cell.kind == "profile" and bench.cell.params.get("shards"):
        found = merged(bench.cell, bench)
    else:
        found = profile(model, _told(batches(images, size), len(images), size, bench))
    bench.folder.mkdir(parents=True, exist_ok=True)
    found.save(bench.folder / FILE)
    if bench.cell.kind == "shard":
        return Outcome({"n": len(images)}, context={"notes": list(found.notes)})
    found.table().to_parquet(bench.folder / "table.parquet")
    return Outcome(profile_result(found), context={"notes": list(found.notes)})


def skipped(model: nn.Module, data: ImageData, size: int, bench: Workbench) -> Outcome:
    """The model's answers with each block left out in turn."""
    images = data.validation
    parts = anatomy(model)
    if parts.head is None or isinstance(parts.head, nn.Identity):
        return Outcome({"measure": None, "n": len(images), "intact": None, "blocks": []},
                       context={"notes": ["the model has no head: there are no predictions to lose"]})  # fmt: skip
    intact = yardstick(model, images, data.classes, size)
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
            without, _ = predictions(shorter, images, size)
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
    """What a profile cell's record holds: table, intervals, the readout's losses, phases; None for NaN."""
    result: dict[str, Json] = {
        "depth": found.facts.depth,
        "reads": found.facts.reads,
        "n": found.images.images,
        "table": _rows(found.table().to_dict("records")),
        "intervals": _rows(found.intervals().to_dict("records")),
        "readout_loss": None,
        "phases": _rows(found.phases().table().to_dict("records")) if found.images.images else [],
        "missing": list(found.phases().missing) if found.images.images else [],
        "onset": found.tradeoff_onset(),
        "regime": found.regime(),
        "position_dominance": [value if math.isfinite(value) else None for value in found.position_dominance()],
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
        return int(value) if isinstance(value, np.integer) else value

    return [{str(name): plain(value) for name, value in row.items()} for row in records]
