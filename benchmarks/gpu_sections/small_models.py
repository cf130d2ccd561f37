"""Models of the right shapes with drawn weights: a machine without a network has no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import deadweight as dw


def vision(depth: int = 4) -> nn.Module:
    """A ViT for pictures of 8 × 8, in float64, its weights drawn so that no block is idle and no answer nought."""
    model = dw.load("embedded:digits-vit", depth=depth).double().eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 or name.endswith("bias"):
                spread = weight.shape[-1] ** -0.5 if weight.dim() == 2 else 0.1
                weight.copy_(spread * torch.randn(weight.shape, dtype=torch.float64, generator=draw))
    return model


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 1, 8, 8) float64."""
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def byte_tokenizer() -> Any:
    """A token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    bytewise.pre_tokenizer, bytewise.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="!")  # noqa: S106 (no password)


def language(
    *, width: int = 32, depth: int = 2, heads: int = 2, kv_heads: int = 2, hidden: int = 64, vocabulary: int = 256
) -> dw.LanguageModel:
    """A Llama in float64 that reads bytes; the defaults are as small as it gets."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=hidden, vocab_size=vocabulary, max_position_embeddings=8192, bos_token_id=None,
        eos_token_id=0, initializer_range=width**-0.5,
    )  # fmt: skip
    return dw.LanguageModel(LlamaForCausalLM(config).double().eval(), byte_tokenizer(), "bytes", 8192)


SMOLLM2_135M = {"width": 576, "depth": 30, "heads": 9, "kv_heads": 3, "hidden": 1536, "vocabulary": 49_152}
