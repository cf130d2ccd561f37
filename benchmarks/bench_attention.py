"""Attention of long texts, forward and backward, 12 heads of 64 and one sequence: ours and peers against causal SDPA.

Every line also gives the largest relative error of output and gradients against the float64 oracle of the mechanism, on
a shorter text: a fast answer to another question is no win. Peers that are not installed are named:
``pip install --no-deps --target /tmp/peers/attention local-attention linear-attention-transformer reformer-pytorch
einops hyper-connections axial-positional-embedding product-key-memory linformer colt5-attention torch-einops-utils``,
then ``PYTHONPATH=/tmp/peers/attention``.

    python benchmarks/bench_attention.py [--tokens 2048 8192] [--dtype float32 bfloat16] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import in_turns, keep_memory, table, where
from torch import Tensor

from deadweight.attention import oracles
from deadweight.attention.linear_chunks import chunked_linear_attention
from deadweight.attention.lsh import hash_buckets, lsh_attention
from deadweight.attention.sliding_window import banded_attention

HEADS, WIDTH, WINDOW = 12, 64, 256
ROTATIONS = torch.randn(4, WIDTH, 32, generator=torch.Generator().manual_seed(0))
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours() -> dict[str, Attend]:
    return {
        "sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        f"window {WINDOW}": lambda q, k, v: banded_attention(q, k, v, WINDOW, causal=True),
        "linear": lambda q, k, v: chunked_linear_attention(q, k, v, None, 64)[0],
        "lsh, 4 rounds": lambda q, k, v: lsh_attention(q, v, hash_buckets(q, ROTATIONS), 64),
    }


def peers() -> dict[str, Attend]:
    """What of other packages is here."""
    found: dict[str, Attend] = {}
    try:
        from local_attention import LocalAttention

        local = LocalAttention(
            dim=WIDTH, window_size=WINDOW, causal=True, look_forward=0, exact_windowsize=True, use_rotary_pos_emb=False
        )
        found[f"window {WINDOW}, local-attention"] = lambda q, k, v: local(*(x.flatten(0, 1) for x in (q, k, v))).view(
            q.shape
        )
    except ImportError as missing:
        print(f"  local-attention is not here ({missing})")
    try:
        from linear_attention_transformer.linear_attention_transformer import causal_linear_attn

        found["linear, linear-attention-transformer"] = lambda q, k, v: causal_linear_attn(q, k, v, bucket_size=64)
    except ImportError as missing:
        print(f"  linear-attention-transformer is not here ({missing})")
    try:
        from reformer_pytorch.reformer_pytorch import LSHAttention

        hashing = LSHAttention(bucket_size=64, n_hashes=4, causal=True, dropout=0.0)
        found["lsh, 4 rounds, reformer-pytorch"] = lambda q, k, v: hashing(q.flatten(0, 1), v.flatten(0, 1))[0].view(
            q.shape
        )
    except ImportError as missing:
        print(f"  reformer-pytorch is not here ({missing})")
    return found


def exact(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if name.startswith("window"):
        return oracles.softmax_attention(q, k, v, window=WINDOW)
    if name.startswith("linear"):
        return oracles.linear_attention(q, k, v)
    if name.startswith("lsh"):
        return oracles.bucket_attention(q, v, hash_buckets(q.detach(), ROTATIONS), 64)
    return oracles.softmax_attention(q, k, v)


def inputs(heads: int, tokens: int, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(1, heads, tokens, WIDTH, generator=draw).to(dtype) for _ in range(4)]
    return [x.requires_grad_() for x in made[:3]] + made[3:]


def both_ways(attend: Attend, q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    y = attend(q, k, v)
    return y, *torch.autograd.grad(y, (q, k, v), dy, allow_unused=True, materialize_grads=True)


def error(name: str, attend: Attend, dtype: torch.dtype) -> str:
    """Of a text of 512 tokens in two heads; peers hash with rotations of their own, so theirs is not comparable."""
    if "reformer" in name:
        return "hashes differently; not causal"
    rough = inputs(2, 512, dtype)
    precise = [x.detach().double() for x in rough]
    wanted = both_ways(lambda *heads: exact(name, *heads), *[x.requires_grad_() for x in precise[:3]], precise[3])
    found = both_ways(attend, *rough)
    off = [
        float((one.double() - two).abs().max() / two.abs().max())
        for one, two in zip(found, wanted, strict=True)
        if two.any()
    ]
    return f"error {off[0]:.0e}, gradients {max(off[1:]):.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_memory()
    warnings.simplefilter("ignore")
    works = ours() | peers()
    for dtype in (getattr(torch, name) for name in asked.dtype):
        errors = {name: error(name, attend, dtype) for name, attend in works.items()}
        for tokens in asked.tokens:
            print(f"{tokens} tokens, forward and backward; {where(str(dtype).removeprefix('torch.'))}", flush=True)
            given = inputs(HEADS, tokens, dtype)
            runs = {name: partial(both_ways, attend, *given) for name, attend in works.items()}
            table(in_turns(runs, rounds=asked.rounds), "sdpa", errors)


if __name__ == "__main__":
    main()
