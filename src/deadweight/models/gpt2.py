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


@dataclass(frozen=True)
class KeysValues:
    """What GPT-2's own attention keeps of the tokens it has seen: keys and values, (B, H, tokens, D) each."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class GPT2Cache:
    """A cache of every block, and the tokens seen. Never changed: an old one can be used again."""

    blocks: tuple[Any, ...]
    length: int = 0


class CausalAttention(nn.Module):
    """GPT-2's own: queries, keys and values from one projection `qkv`, fused causal attention, `proj` out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor, cache: KeysValues | None = None) -> Any:
        """The outputs; with a cache also the new one, and queries are the last of the keys."""
        batch, tokens, _ = x_BTC.shape
        q_BHTD, k_BHTD, v_BHTD = self.qkv(x_BTC).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        past = 0
        if cache is not None:
            past = cache.keys.shape[2]
            k_BHTD, v_BHTD = torch.cat([cache.keys, k_BHTD], 2), torch.cat([cache.values, v_BHTD], 2)
        mask = None
        if past and tokens > 1:  # is_causal would let the queries be the first of the keys
            mask = torch.ones(tokens, past + tokens, dtype=torch.bool, device=x_BTC.device).tril(past)
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, mask, is_causal=not past)
        y_BTC: Tensor = self.proj(y_BHTD.transpose(1, 2).flatten(2))
        return y_BTC if cache is None else (y_BTC, KeysValues(k_BHTD, v_BHTD))

    def new_cache(self, batch: int) -> KeysValues:
        empty = self.qkv.weight.new_zeros(batch, self.heads, 0, self.qkv.in_features // self.heads)
        return KeysValues(empty, empty)


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

    def step(self, x_BTC: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """The same after the tokens in `cache`, and the new cache."""
        y_BTC, grown = self.attention(self.norm1(x_BTC), cache=cache)
        x_BTC = x_BTC + y_BTC
        return x_BTC + self.mlp(self.norm2(x_BTC)), grown


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
        x_BTC = self._embedded(tokens_BT, 0)
        for block in self.blocks:
            x_BTC = block(x_BTC)
        logits_BTV: Tensor = self.head(self.norm(x_BTC))
        if targets is None:
            return logits_BTV
        return logits_BTV, F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())

    def _embedded(self, tokens_BT: Tensor, start: int) -> Tensor:
        self._check_length(start + tokens_BT.shape[1])
        places_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC: Tensor = self.tokens(tokens_BT) + self.positions(places_T)
        return x_BTC

    def _check_length(self, tokens: int) -> None:
        if tokens > self.config.length:
            raise InputError(
                f"{tokens} tokens",
                expected=f"at most {self.config.length}, for so many positions are learned",
                cure="shorten the text, or give the model a larger `length`",
            )

    def new_cache(self, batch: int) -> GPT2Cache:
        """An empty cache; raises :class:`InputError` where a block's attention has none."""
        blocks: list[Any] = list(self.blocks)
        for number, block in enumerate(blocks):
            if not hasattr(block.attention, "new_cache"):
                raise InputError(
                    f"block {number} with a {type(block.attention).__name__} for attention",
                    expected="an attention with new_cache(batch), called as attention(x, cache=cache)",
                    cure="use one of deadweight's mechanisms",
                )
        return GPT2Cache(tuple(block.attention.new_cache(batch) for block in blocks))

    def step(self, tokens_BT: Tensor, cache: GPT2Cache) -> tuple[Tensor, GPT2Cache]:
        """Logits (B, V) after the last of some more tokens, and the new cache."""
        x_BTC, grown = self._embedded(tokens_BT, cache.length), []
        blocks: list[Any] = list(self.blocks)
        for block, kept in zip(blocks, cache.blocks, strict=True):
            x_BTC, kept = block.step(x_BTC, kept)
            grown.append(kept)
        logits_BV: Tensor = self.head(self.norm(x_BTC[:, -1]))
        return logits_BV, GPT2Cache(tuple(grown), cache.length + tokens_BT.shape[1])

    @torch.no_grad()
    def generate(
        self, tokens_BT: Tensor, count: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """`tokens_BT` and `count` more, (B, T + count): the likeliest each, or drawn where `temperature` is above 0.

        Raises :class:`InputError`, before anything is computed, where there are not so many positions.
        """
        if count < 0 or temperature < 0 or tokens_BT.shape[1] < 1:
            raise InputError(
                f"{count} tokens at temperature {temperature} after {tokens_BT.shape[1]}",
                expected="none of them below 0, and a prompt of one token at least",
                cure="temperature 0 takes the likeliest token",
            )
        self._check_length(tokens_BT.shape[1] + count)
        cache, new = self.new_cache(len(tokens_BT)), tokens_BT
        for _ in range(count):
            logits_BV, cache = self.step(new, cache)
            if temperature:
                new = torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)
            else:
                new = logits_BV.argmax(-1, keepdim=True)
            tokens_BT = torch.cat([tokens_BT, new], 1)
        return tokens_BT

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
