"""A training step of GPT-2 small: ours against transformers' with sdpa, and the share of the machine's matrix product.

Forward, loss, backward, AdamW; dropout 0 in both, for with attention dropout PyTorch leaves its flash kernel on a CPU.
The share is of the largest square product of this dtype, measured here, and counts what a step needs: three times the
forward pass's multiplications, attention by its unmasked pairs.

    python benchmarks/bench_gpt2.py [--batch 2] [--length 512] [--dtype float32 bfloat16] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from side_by_side import in_turns, keep_memory, table, where
from torch import Tensor, nn
from transformers import GPT2Config as HuggingFaceConfig
from transformers import GPT2LMHeadModel

from deadweight.models.gpt2 import GPT2, GPT2Config


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Multiply-accumulates a second of the fastest of a few square products."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    took = []
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        took.append(time.perf_counter() - began)
    return size**3 / min(took)


def macs(config: GPT2Config, batch: int, length: int) -> int:
    """Of a step: products with weights and between activations, forward once and backward twice."""
    block = 12 * config.width**2 * length
    pairs = length * (length + 1) // 2 * 2 * config.width
    return 3 * batch * (config.depth * (block + pairs) + config.width * config.vocabulary * length)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens_BT: Tensor, *, ours: bool) -> None:
    inputs, targets = (x.contiguous() for x in (tokens_BT[:, :-1], tokens_BT[:, 1:]))
    loss = model(inputs, targets)[1] if ours else model(inputs, labels=targets, shift_labels=targets).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_memory()
    for name in asked.dtype:
        dtype = getattr(torch, name)
        theirs = GPT2LMHeadModel(
            HuggingFaceConfig(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa")
        ).to(dtype)
        models = {"transformers, sdpa": theirs, "ours": GPT2.from_huggingface(theirs)}
        tokens = torch.randint(50_257, (asked.batch, asked.length + 1), generator=torch.Generator().manual_seed(0))
        works = {}
        for title, model in models.items():
            optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True)
            works[title] = partial(step, model, optimizer, tokens, ours=title == "ours")
        fastest = peak(dtype)
        print(f"a training step, {asked.batch} × {asked.length} tokens; {where(name)}", flush=True)
        print(f"  matrix product at best {2 * fastest / 1e9:.0f} GFLOP/s")
        seconds = in_turns(works, rounds=asked.rounds)
        needed = macs(GPT2Config(), asked.batch, asked.length)
        shares = {title: f"{needed / min(took) / fastest:.0%} of the peak at best" for title, took in seconds.items()}
        table(seconds, "transformers, sdpa", shares)


if __name__ == "__main__":
    main()
