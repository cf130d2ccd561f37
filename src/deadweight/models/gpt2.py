"""GPT-2 (Radford et al. 2019), small enough to read in a few minutes; any attention can be put into its blocks.

Shape suffixes: B batch, T tokens, C width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.errors import InputError


@dataclass(frozen=True)
class GPT2Config:
    """Shape of a GPT-2; the defaults are the published small model.

    length:  the most tokens a sequence may have (learned positions).
    hidden:  width of the MLP; None for 4 · width.
    epsilon: of the layer norms.
    """

    vocabulary: int = 50_257
    length: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocabulary", "length", "width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", expected=f"{name} ≥ 1", cure=f"raise {name}")
        if self.width % self.heads:
            raise InputError(
                f"heads {self.heads} do not divide width {self.width}",
                expected="width a multiple of heads",
                cure="choose other heads",
            )


class CausalAttention(nn.Module):
    """GPT-2's own: queries, keys and values from one projection `qkv`, fused causal attention, `proj` out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        batch, tokens, _ = x_BTC.shape
        q_BHTD, k_BHTD, v_BHTD = self.qkv(x_BTC).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
        y_BTC: Tensor = self.proj(y_BHTD.transpose(1, 2).flatten(2))
        return y_BTC


class MLP(nn.Module):
    """fc2(GELU(fc1(x))), GELU in its tanh form as GPT-2 was trained with."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        y_BTC: Tensor = self.fc2(F.gelu(self.fc1(x_BTC), approximate="tanh"))
        return y_BTC


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, config: GPT2Config, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.attention = attention
        self.norm2 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.mlp = MLP(config.width, config.hidden or 4 * config.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.attention(self.norm1(x_BTC))
        x_BTC = x_BTC + self.mlp(self.norm2(x_BTC))
        return x_BTC


class GPT2(nn.Module):
    """Token and learned position embeddings, blocks, a last norm, and a head tied to the token embedding.

    Parameters
    ----------
    config:
        The shape.
    attention:
        Makes the attention of a block from its number: a module ``(B, T, C) -> (B, T, C)`` that must be causal.
        None for GPT-2's own.
    """

    def __init__(self, config: GPT2Config, attention: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        make = attention or (lambda _: CausalAttention(config.width, config.heads))
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(Block(config, make(index)) for index in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self._initialise()

    def _initialise(self) -> None:
        """Normal with deviation 0.02; what writes to the stream smaller by √(2 · depth) (Radford et al., 2.3)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith((".fc2", ".proj", ".o_proj"))
                deviation = 0.02 / math.sqrt(2 * self.config.depth) if writes else 0.02
                nn.init.normal_(module.weight, std=deviation)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    @overload
    def forward(self, tokens_BT: Tensor) -> Tensor: ...
    @overload
    def forward(self, tokens_BT: Tensor, targets: None) -> Tensor: ...
    @overload
    def forward(self, tokens_BT: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, tokens_BT: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, T, V); with `targets` (B, T), the token wanted after each, also their mean cross-entropy in nats.

        Raises :class:`InputError` for more tokens than there are positions.
        """
        length = tokens_BT.shape[1]
        if length > self.config.length:
            raise InputError(
                f"{length} tokens",
                expected=f"at most {self.config.length}, for so many positions are learned",
                cure="shorten the text, or give the model a larger `length`",
            )
        x_BTC = self.tokens(tokens_BT) + self.positions(torch.arange(length, device=tokens_BT.device))
        for block in self.blocks:
            x_BTC = block(x_BTC)
        logits_BTV: Tensor = self.head(self.norm(x_BTC))
        if targets is None:
            return logits_BTV
        return logits_BTV, F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())

    @classmethod
    def from_huggingface(cls, hf_model: nn.Module) -> GPT2:
        """Our model with the weights of transformers' ``GPT2LMHeadModel``, in eval mode; the weights are copied.

        Raises :class:`InputError` for another model, or a GPT-2 with options the published ones do not have.
        """
        config: Any = getattr(hf_model, "config", None)
        transformer: Any = getattr(hf_model, "transformer", None)
        if getattr(config, "model_type", None) != "gpt2" or not hasattr(transformer, "wpe"):
            raise InputError(
                f"a {type(hf_model).__name__}", expected="a GPT2LMHeadModel", cure="load one with transformers"
            )
        if config.activation_function != "gelu_new" or config.scale_attn_by_inverse_layer_idx:
            raise InputError(
                f"a GPT-2 with activation {config.activation_function!r} and attention scaled a layer: "
                f"{config.scale_attn_by_inverse_layer_idx}",
                expected="gelu_new and no such scale, as published",
                cure="use the model as it is, through deadweight.load_lm",
            )
        shape = GPT2Config(
            config.vocab_size, config.n_positions, config.n_embd, config.n_layer, config.n_head,
            config.n_inner, config.layer_norm_epsilon,
        )  # fmt: skip
        model = cls(shape)
        model.load_state_dict(_renamed(transformer.state_dict()))
        return model.to(transformer.wte.weight.dtype).eval()


_NAMES = {
    "wte": "tokens", "wpe": "positions", "ln_f": "norm", "h": "blocks", "ln_1": "norm1", "ln_2": "norm2",
    "attn": "attention", "c_attn": "qkv", "c_fc": "fc1",
}  # fmt: skip


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names to ours; its Conv1D keeps weights the other way round."""
    renamed = {}
    for name, value in state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # the causal mask older versions keep as a buffer
            continue
        turned = value.T if ".c_" in name and name.endswith("weight") else value
        name = name.replace("attn.c_proj", "attn.proj").replace("mlp.c_proj", "mlp.fc2")
        renamed[".".join(_NAMES.get(part, part) for part in name.split("."))] = turned
    renamed["head.weight"] = renamed["tokens.weight"]
    return renamed
