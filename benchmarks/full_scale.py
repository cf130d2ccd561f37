"""What the four papers' studies would take at full scale: cells, hours, bytes, on how many accelerators.

An estimate, not a measurement. Cells are counted from the papers' protocols; parameters and multiply-accumulates are
counted by `dw.count` on models without weights; hours are operations over a rate that is stated; the time until the
last cell is done comes from the simulation that `deadweight run --dry-run` uses. To see a plan of one's own data, call
that instead.

    python benchmarks/full_scale.py --teraflops 100
"""

from __future__ import annotations

import argparse

import timm
import torch

import deadweight as dw
from deadweight.lab import Cell
from deadweight.lab.forecast import forecast
from deadweight.lab.tally import spoken as time
from deadweight.studies.sizes import spoken

MACHINES = (1, 2, 4, 8, 16, 32, 64)
IMAGENET_TRAIN, IMAGENET_HELD = 1_281_167, 50_000
Work = tuple[Cell, float]  # a cell whose `seconds` are set, and the bytes it leaves


def _vit(name: str, **options: float) -> tuple[int, int]:
    """(parameters, multiply-accumulates a picture) of a ViT without weights."""
    with torch.device("meta"):
        model = timm.create_model(name, **options)
        counts = dw.count(model.eval(), torch.empty(1, 3, 224, 224))
    return counts.parameters, counts.macs


def mlp(rate: float) -> list[Work]:
    """Three variants, two seeds, 300 epochs of ImageNet; forward and backward are three forwards (arXiv 2512.01059)."""
    parameters, macs = _vit("vit_base_patch16_224")
    half, less = _vit("vit_base_patch16_224", mlp_ratio=2.0)
    sizes = {"baseline": (parameters, macs), "grouped": (half, macs), "shallow": (half, less)}  # grouped: within 0.01 %
    made = []
    for variant, (held, each) in sizes.items():
        seconds = 3 * 2 * each * IMAGENET_TRAIN * 300 / rate + 2 * each * IMAGENET_HELD * 300 / rate
        for seed in range(2):
            made.append((Cell("mlp", "train", {"variant": variant, "seed": seed}, seconds=seconds), 4.0 * held))
    made.append((Cell("mlp", "time", {}, exclusive=True, seconds=120), 3e3))
    return made


def depth(rate: float) -> list[Work]:
    """Profiles of three ViTs on ImageNet's held-out part in 8 shards, and the loss without each block (2511.21635)."""
    made: list[Work] = []
    for name, blocks in (("vit_small_patch16_224", 12), ("vit_base_patch16_224", 12), ("vit_large_patch16_224", 24)):
        _, macs = _vit(name)
        forward = 2 * macs * IMAGENET_HELD / rate
        shards = [Cell("depth", "shard", {"vision": name, "shard": n}, seconds=3 * forward / 8) for n in range(8)]
        made += [(shard, 60e6) for shard in shards]
        needs = tuple(cell.key for cell in shards)
        made.append((Cell("depth", "profile", {"vision": name}, needs, seconds=60), 480e6))
        made.append((Cell("depth", "skip", {"vision": name}, seconds=(blocks + 1) * forward), 50e3 * (blocks + 1)))
    return made


def icl(rate: float) -> list[Work]:
    """Eight models, eight tasks of 500 items, five seeds, k of 1 … 16, natural, inverted and random (2511.21038)."""
    made: list[Work] = []
    for model in (1e9, 1.5e9, 3e9, 7e9, 7e9, 8e9, 9e9, 12e9):
        for task in range(8):
            for k in (0, 1, 2, 4, 8, 16):
                for condition in ("natural", "inverted", "random") if k else ("zero-shot",):
                    for seed in range(5 if k else 1):
                        tokens = 60 * k + 500 * (60 + 5)  # the demonstrations once, each item and its labels
                        place = {"model": f"{model:g} {len(made)}", "task": task, "k": k, "condition": condition,
                                 "seed": seed}  # fmt: skip
                        seconds = 2 * model * tokens / rate + 0.5
                        made.append((Cell("icl", "answers", place, seconds=seconds), 21e3))
    return made


def attention(rate: float) -> list[Work]:
    """GPT-2 with eight mechanisms, three seeds, 30 epochs of 400 batches of 16 × 512 tokens (arXiv 2507.07247)."""
    made: list[Work] = []
    for mechanism in ("eager", "sdpa", "flash", "gqa", "sliding_window", "linear", "lsh", "mla"):
        for seed in range(3):
            seconds = 6 * 124e6 * 30 * 400 * 16 * 512 / rate
            # a training whose energy is measured has its machine to itself
            made.append((Cell("attention", "train", {"mechanism": mechanism, "seed": seed}, exclusive=True,
                              seconds=seconds), 7e3))  # fmt: skip
    return made


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--teraflops", type=float, default=100.0, help="sustained by one accelerator, in 10^12 a second")
    rate = given.parse_args().teraflops * 1e12
    print(f"one accelerator at {rate / 1e12:g} TFLOP/s sustained; machines of one accelerator each")
    print("| study | cells | accelerator-hours | on disk | longest chain | done after, on 1 / 2 / … machines |")
    print("|---|---|---|---|---|---|")
    together: list[Work] = []
    for name, plan in (("mlp", mlp), ("depth", depth), ("icl", icl), ("attention", attention)):
        work = plan(rate)
        together += work
        _row(name, work)
    _row("all four", together)


def _row(name: str, work: list[Work]) -> None:
    cells = [cell for cell, _ in work]
    expected = forecast(cells, MACHINES)
    spans, fastest = [], float("inf")
    for machines, span in expected.spans.items():
        if span < 0.95 * fastest:
            fastest = span
            spans.append(f"{machines}: {time(span)}")
    held = int(sum(size for _, size in work))
    print(
        f"| {name} | {len(cells)} | {expected.seconds / 3600:.1f} | {spoken(held)} | {time(expected.longest)} | "
        f"{', '.join(spans)} |"
    )


if __name__ == "__main__":
    main()
