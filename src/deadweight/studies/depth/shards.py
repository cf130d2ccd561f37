"""A depth profile in parts: each shard of the images is a cell of its own, and one cell merges them.

What the shards are does not depend on who computes them: part k of n takes whole batches, so a batch holds the same
images as it does without shards, and the parts are merged in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from torch import Tensor

from deadweight.data import ImageSet
from deadweight.lab import Cell, Workbench
from deadweight.probes import DepthProfile

FILE = "profile.safetensors"


@dataclass(frozen=True)
class Part:
    """The images from `start` to before `stop`, as a set of their own."""

    images: ImageSet
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[self.start + index]


def part(images: ImageSet, batch_size: int, shard: int, shards: int) -> Part:
    """Shard `shard` of `shards`: a run of whole batches, as even as can be."""
    batches = -(-len(images) // batch_size)
    first, end = shard * batches // shards, (shard + 1) * batches // shards
    return Part(images, first * batch_size, min(end * batch_size, len(images)))


def shard_cells(whole: Cell, shards: int) -> list[Cell]:
    """A cell a shard and the one that merges them, in place of the cell that profiles the whole."""
    params = {"shards": shards, **whole.params}
    parts = [
        Cell(whole.study, "shard", {"shard": number, **params}, whole.needs, whole.sources, whole.version,
             seconds=whole.seconds / shards)
        for number in range(shards)
    ]  # fmt: skip
    needs = (*whole.needs, *(cell.key for cell in parts))
    return [*parts, Cell(whole.study, whole.kind, params, needs, whole.sources, whole.version, seconds=1)]


def merged(cell: Cell, bench: Workbench) -> DepthProfile:
    """The profile of all shards `cell` needs, in their order."""
    shards = int(cell.params["shards"])
    paths = [Path(bench.folder_of(key)) / FILE for key in cell.needs[-shards:]]
    return reduce(DepthProfile.merge, [DepthProfile.load(path) for path in paths])
