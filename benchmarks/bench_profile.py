"""What a depth profile, its table included, costs over the bare forward pass of the same batches.

All columns, batches of 16. `--model`, `--dtype`, `--batches`, `--rounds` narrow or widen it.
"""

from __future__ import annotations

import argparse

import torch
from side_by_side import ratio, say, where

import deadweight as dw

CASES = {"vit_base_patch16_224": 4, "vit_small_patch14_dinov2": 8}  # batches: the table's cost is the same for any


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", choices=list(CASES))
    options.add_argument("--dtype", choices=["float32", "bfloat16"])
    options.add_argument("--batches", type=int)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    torch.set_num_threads(2)
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

    print(where(dtype))
    found = ratio(lambda: dw.profile(model, batches).table(), bare, rounds=rounds, warmup=0)
    say(f"{name}, {count} batches of 16, profile and table", found, "the bare pass")


main()
