"""Whole studies simulated from their records: records → effects → settle → select, as a user's run goes.

Every part's true loss is the margin, so that any verdict is a false one. Used by `calibration.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from deadweight.lab import Cell, Record, Records
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.icl.study import IclStudy
from deadweight.studies.mlp.study import MlpStudy

MARGIN = 0.01
Generator = np.random.Generator
Bits = npt.NDArray[np.bool_]


def bits(right: Bits) -> str:
    return "".join("1" if one else "0" for one in right)


def any_verdict(study: DepthStudy | IclStudy | MlpStudy, records: Records) -> bool:
    """Whether anything that is shown got a verdict other than undecided."""
    shown = study.judge(records)
    every = [pair.finding for _, pairs in study.settled(records) for pair in pairs]
    decided = {finding.id for finding in every if finding.verdict in ("dead weight", "needed")}
    assert {finding.id for finding in shown if finding.verdict in ("dead weight", "needed")} <= decided
    return bool(decided)


def depth_study(generator: Generator, blocks: int, items: int, better: float) -> bool:
    """Each block's removal makes as many answers wrong as the margin says, beside those it puts right."""
    intact = generator.random(items) < 0.9
    lost = (MARGIN + better) / 0.9
    rows = []
    for block in range(blocks):
        turned = generator.random(items)
        after = np.where(intact, turned >= lost, turned < better / 0.1)
        rows.append({"block": block + 1, "path": f"blocks.{block}", "correct": bits(after)})
    result = {"measure": "accuracy", "n": items, "works": True, "intact": bits(intact), "blocks": rows}
    cell = Cell("depth", "skip", {"vision": "file:a", "trained": True})
    return any_verdict(DepthStudy(vision="file:a"), Records([Record(cell, result, {}, {})]))


def language_study(
    generator: Generator, blocks: int, sequences: int, shape: Callable[..., npt.NDArray[np.float64]]
) -> bool:
    """Each block's removal raises the loss by the margin on average, much on some sequences and little on others."""
    before = generator.gamma(25, 3 / 25, sequences)
    rows = [
        {"block": block + 1, "losses": (before * (1 + MARGIN * shape(generator, (1, sequences))[0])).tolist()}
        for block in range(blocks)
    ]
    result = {"n": sequences, "length": 128, "depth": blocks, "intact": before.tolist(), "blocks": rows, "drops": []}
    cell = Cell("depth", "language", {"language": "hf:a", "text": "embedded:stdlib"}, version=3)
    return any_verdict(DepthStudy(language="hf:a"), Records([Record(cell, result, {}, {})]))


def icl_study(generator: Generator, tasks: int, items: int, sets: int, spread: float) -> bool:
    """Natural demonstrations gain the margin over none and over random labels; sets shift all items of a task."""
    records = []
    gold = generator.integers(0, 2, items)
    for task in range(tasks):
        difficulty = 0.5 + 0.2 * generator.choice([-1.0, 1.0], items)
        prior = generator.random(items) < difficulty - MARGIN
        for number in range(sets):
            shift = generator.normal(0, spread) if spread else 0.0
            natural = generator.random(items) < np.clip(difficulty + shift, 0, 1)
            random = generator.random(items) < np.clip(difficulty - MARGIN, 0, 1)
            frames = [
                {"condition": condition, "k": k, "predicted": np.where(right, gold, 1 - gold).tolist()}
                for condition, k, right in (("zero-shot", 0, prior), ("natural", 8, natural), ("random", 8, random))
            ]
            result = {
                "task": f"t{task}", "labels": ["a", "b"], "phi": [1, 0], "items": [str(at) for at in range(items)],
                "gold": gold.tolist(), "frames": frames,
            }  # fmt: skip
            cell = Cell("icl", "answers", {"task": f"t{task}", "seed": number, "language": "hf:a"})
            records.append(Record(cell, result, {}, {}))
    return any_verdict(IclStudy(language="hf:a"), Records(records))


def mlp_study(generator: Generator, seeds: int, images: int, spread: float) -> bool:
    """Two variants lose the margin, over images and seeds."""
    records = []
    difficulty = np.clip(generator.normal(0.9, 0.1, images), 0.05, 0.95)
    for name, loss in (("baseline", 0.0), ("grouped", MARGIN), ("shallow", MARGIN)):
        for seed in range(seeds):
            shift = generator.normal(0, spread) if spread else 0.0
            right = generator.random(images) < np.clip(difficulty - loss - shift, 0, 1)
            result = {
                "top1": float(right.mean()), "top5": 1.0, "peak_epoch": 1, "degradation": 0.0, "n": images,
                "parameters": 3 if name == "baseline" else 2, "unique_mlps": 2, "macs": 1,
                "curves": {"top1": [1.0], "ema_top1": []}, "correct": bits(right),
            }  # fmt: skip
            cell = Cell("mlp", "train", {"variant": name, "seed": seed, "images": "x"})
            records.append(Record(cell, result, {}, {}))
    return any_verdict(MlpStudy(), Records(records))
