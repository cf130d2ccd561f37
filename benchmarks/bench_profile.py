"""What a depth profile, its table included, costs over the bare forward pass of the same batches.

All columns, batches of 16; wall clock, and processor time, which other work on the machine hardly touches where one
thread works alone (`--threads 1` with OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1: idle threads of a pool spin).
`--model`, `--dtype`, `--batches`, `--rounds` narrow or widen it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from side_by_side import where

import deadweight as dw

CASES = {"vit_base_patch16_224": 4, "vit_small_patch14_dinov2": 8}  # batches: the table's cost is the same for any


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", choices=list(CASES))
    options.add_argument("--dtype", choices=["float32", "bfloat16"])
    options.add_argument("--batches", type=int)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    for name in [asked.model] if asked.model else CASES:
        for dtype in [asked.dtype] if asked.dtype else ("float32", "bfloat16"):
            compare(name, dtype, asked.batches or CASES[name], asked.rounds)


def compare(name: str, dtype: str, count: int, rounds: int) -> None:
    torch.manual_seed(0)
    sized = {"img_size": 224} if "patch14" in name else {}
    model = dw.load(f"timm:{name}?pretrained=false", dtype=dtype, **sized)
    batches = [(torch.rand(16, 3, 224, 224), torch.arange(16) % 10) for _ in range(count)]

    def bare() -> None:
        with torch.inference_mode():
            for images, _ in batches:
                model(images.to(getattr(torch, dtype)))

    found: list[dict[str, tuple[float, float]]] = []
    bare()
    for _ in range(rounds):
        profiles = []
        alone = timed(bare)
        streamed = timed(lambda kept=profiles: kept.append(dw.profile(model, batches)))
        tabled = timed(lambda kept=profiles: kept[0].table())
        found.append({"bare": alone, "profile": streamed, "table": tabled})
    print(f"{name}, {count} batches of 16; {where(dtype)}")
    for place, clock in enumerate(("wall clock", "processor time")):
        each = {what: [one[what][place] for one in found] for what in ("bare", "profile", "table")}
        both = [(p + t) / b for p, t, b in zip(each["profile"], each["table"], each["bare"], strict=True)]
        pass_alone = [p / b for p, b in zip(each["profile"], each["bare"], strict=True)]
        seconds = ", ".join(f"{what} {statistics.median(values):.2f} s" for what, values in each.items())
        print(
            f"  {clock}: pass {statistics.median(pass_alone):.2f} ×, pass and table {statistics.median(both):.2f} × "
            f"the bare pass ({min(both):.2f} … {max(both):.2f}; {seconds})",
            flush=True,
        )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of processors."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


main()
