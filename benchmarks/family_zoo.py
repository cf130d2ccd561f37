"""Every causal language family that transformers has, and its vision families that are like ViT, tiny and random.

A family is built from its own configuration class with whatever of the sizes below it knows; one that appears in a
later release is in the list by itself. Building fails loudly: the page says which were not tried, and why.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

LARGEST = 12_000_000  # parameters; what no size makes smaller is left out, and said
SPREAD = 4  # weights are this much larger than a fresh model's, which would hardly attend
_WORDS = {
    "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 128, "n_positions": 128, "n_ctx": 128, "max_seq_len": 128,
}  # fmt: skip
_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(
        (
            "num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers",
            "num_decoder_layers", "num_encoder_layers",
        ),
        4,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "decoder_attention_heads",
            "encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads",
        ),
        4,
    ),
    "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8, "sliding_window": 16, "rotary_dim": 4,
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_dim", "q_lora_rank", "kv_lora_rank"), 16
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "attn_layer_period"), 2),
    **dict.fromkeys(("n_group", "n_groups", "topk_group", "mamba_n_groups", "first_k_dense_replace"), 1),
    **dict.fromkeys(
        (
            "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "state_size", "mamba_d_state", "mamba_n_heads",
            "mamba_d_head", "linear_key_head_dim", "linear_value_head_dim", "hidden_size_per_layer_input",
            "index_head_dim", "index_topk",
        ),
        8,
    ),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "index_n_heads", "mamba_expand"), 2),
    "attn_layer_offset": 1, "attn_layer_indices": [1, 3], "attention_hidden_size": 32, "vocab_size_per_layer_input": 64,
    "image_size": 32, "patch_size": 8, "num_labels": 4,
}  # fmt: skip
VISION = (
    "beit", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "hiera", "ijepa", "levit",
    "mobilevit", "pixio", "poolformer", "pvt_v2", "swin", "swinv2", "vit", "vit_msn", "vitdet",
)  # fmt: skip
_STAGES = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "num_labels": 4}
_USUAL = {
    **_WORDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
_EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
_OWN: dict[str, dict[str, Any]] = {  # families whose sizes are of another shape: these instead of those above
    "gpt_neo": {
        **_WORDS, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "window_size": 16,
        "attention_types": [[["global", "local"], 2]],
    },
    "gemma3n_text": {
        **_USUAL, "num_kv_shared_layers": 0, "head_dim": 8, "sliding_window": 8, "laurel_rank": 4,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64, "altup_num_inputs": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "activation_sparsity_pattern": [0.0] * 4,
    },
    "mamba2": {
        **_WORDS, "hidden_size": 32, "num_hidden_layers": 4, "num_heads": 8, "head_dim": 8, "expand": 2,
        "state_size": 8, "n_groups": 1,
    },
    "falcon_h1": {**_USUAL, **_MAMBA, "mamba_d_ssm": 64},
    "zamba2": {
        **_USUAL, "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_state": 8, "mamba_ngroups": 1,
        "n_mamba_heads": 8, "mamba_headdim": 8, "num_mem_blocks": 1,
    },
    "lfm2_moe": {
        **_USUAL, **_EXPERTS, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1, "num_experts": 4,
    },
    "dots1": {
        **_USUAL, **_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "reformer": {
        **_WORDS, "is_decoder": True, "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8,
        "feed_forward_size": 64, "axial_pos_embds": False, "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 8,
    },
    "swin": {**_STAGES, "window_size": 4},
    "swinv2": {**_STAGES, "window_size": 4},
    "hiera": {
        "image_size": [32, 32], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "num_labels": 4,
    },
    "pvt_v2": {
        "image_size": 32, "hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 4], "num_labels": 4,
    },
}  # fmt: skip
_ALSO: dict[str, dict[str, Any]] = {  # hybrids, every other of whose layers is to attend
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
}


@dataclass(frozen=True)
class Family:
    """name: as transformers calls it. build: the tiny model, in eval mode; raises whatever stands in the way."""

    name: str
    kind: str
    build: Callable[[], nn.Module]


class TooLarge(ValueError):
    """Nothing that is known makes the model small."""


def language_families() -> Iterator[Family]:
    """In the order of transformers' own list."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as MAPPING

    yield from _families(MAPPING, "causal_lm", {**_WORDS, **_SIZES})


def vision_families() -> Iterator[Family]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as MAPPING

    sizes = {key: value for key, value in _SIZES.items() if key not in ("head_dim", "num_layers")}
    yield from (one for one in _families(MAPPING, "vision", sizes) if one.name.partition(" (")[0] in VISION)


def _families(mapping: Any, kind: str, sizes: dict[str, Any]) -> Iterator[Family]:
    seen = set()
    for config, models in mapping.items():
        # Several names of one architecture, and models of several parts, whose language model is a row of its own.
        if config in seen or (kind == "causal_lm" and "text_config" in config.sub_configs):
            continue
        seen.add(config)
        for model in models if isinstance(models, tuple) else (models,):
            name = config.model_type if not isinstance(models, tuple) else f"{config.model_type} ({model.__name__})"
            yield Family(name, kind, partial(_built, config, model, sizes))


def _built(config: Any, model: Any, sizes: dict[str, Any]) -> nn.Module:
    known = set(inspect.signature(config.__init__).parameters) | set(config().to_dict())
    asked = dict(_OWN.get(config.model_type) or {name: value for name, value in sizes.items() if name in known})
    if "qk_rope_head_dim" in known:  # latent attention: its heads have parts, and keys of their own
        asked.pop("head_dim", None)
        asked["num_key_value_heads"] = 4
    asked |= _ALSO.get(config.model_type, {})
    shape = config(**asked)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in model(shape).parameters())
    if count > LARGEST:
        raise TooLarge(f"{count:,} parameters with every size that is known made small")
    torch.manual_seed(0)
    built: nn.Module = model(shape).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(SPREAD)
    return built
