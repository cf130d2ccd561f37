"""Latent attention against the multi-head attention of as many heads: a layer in training, and a step of decoding.

12 heads of 64 and one sequence. The layer: forward and backward with respect to input and weights. The step: one more
token after `--cached`, through a cache that grows; DeepSeek-V2's attention in transformers is asked for the same.

    python benchmarks/bench_attention_latent.py [--tokens 2048] [--cached 8192] [--dtype float32 bfloat16] [--threads 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from side_by_side import in_turns, keep_memory, table, where
from torch import Tensor, nn

import deadweight as dw
from deadweight.attention import Cache

DIM, HEADS = 768, 12


def train(layer: nn.Module, x: Tensor) -> None:
    layer(x).sum().backward()
    layer.zero_grad(set_to_none=True)


def steps(layer: nn.Module, cached: int, new: Tensor) -> Callable[[], None]:
    """Ten steps from where the last ten ended; the past is made up, for its numbers cost the same."""
    held = layer.new_cache(1)
    sizes = {name: [cached if size == 0 else size for size in x.shape] for name, x in held.tensors.items()}
    now = Cache({name: torch.randn(size).to(new.dtype) for name, size in sizes.items()}, cached)

    @torch.no_grad()
    def run() -> None:
        nonlocal now
        for _ in range(10):
            _, now = layer(new, cache=now)

    return run


def huggingface(cached: int, new: Tensor) -> Callable[[], None]:
    """DeepSeek-V2's attention with the same ranks and head widths, in its sdpa form."""
    from transformers import DynamicCache
    from transformers.models.deepseek_v2 import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2RotaryEmbedding

    config = DeepseekV2Config(
        hidden_size=DIM, num_attention_heads=HEADS, num_key_value_heads=HEADS, kv_lora_rank=DIM // 2,
        q_lora_rank=DIM // 2, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, head_dim=32,
        num_hidden_layers=1, attn_implementation="sdpa",
    )  # fmt: skip
    layer = DeepseekV2Attention(config, layer_idx=0).to(new.dtype).eval()
    turns = DeepseekV2RotaryEmbedding(config)
    kept = DynamicCache()
    with torch.no_grad():
        filled = torch.randn(1, cached, DIM).to(new.dtype)
        layer(filled, position_embeddings=turns(filled, torch.arange(cached)[None]), attention_mask=None,
              past_key_values=kept)  # fmt: skip

    @torch.no_grad()
    def run() -> None:
        for _ in range(10):
            place = torch.tensor([[kept.get_seq_length()]])
            layer(new, position_embeddings=turns(new, place), attention_mask=None, past_key_values=kept)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--cached", type=int, default=8192)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_memory()
    for name in asked.dtype:
        dtype = getattr(torch, name)
        layers = {"multi-head": dw.mechanism("sdpa", DIM, HEADS), "latent": dw.mechanism("mla", DIM, HEADS)}
        for layer in layers.values():
            layer.to(dtype)
        x = torch.randn(1, asked.tokens, DIM).to(dtype)
        print(f"a layer, {asked.tokens} tokens, forward and backward; {where(name)}", flush=True)
        table(in_turns({n: partial(train, m, x) for n, m in layers.items()}, rounds=asked.rounds), "multi-head")
        works = {f"{n}, 10 steps": steps(m, asked.cached, x[:, :1]) for n, m in layers.items()}
        try:
            works["latent, DeepSeek-V2 of transformers, 10 steps"] = huggingface(asked.cached, x[:, :1])
        except (ImportError, TypeError, AttributeError) as missing:
            print(f"  no DeepSeek-V2 in this transformers ({missing})")
        print(f"decoding after {asked.cached} tokens; {where(name)}", flush=True)
        table(in_turns(works, rounds=asked.rounds), "multi-head, 10 steps")


if __name__ == "__main__":
    main()
