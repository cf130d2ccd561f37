"""What every mechanism is: `(B, T, dim) -> (B, T, dim)`, the same call for training, prefill and decoding.

Shape suffixes: B batch, H query heads, G heads of keys and values, T tokens, D width of a head, C dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, overload

import torch
from torch import Tensor, nn

from deadweight.attention.rotary import check_rotary, turn, turns
from deadweight.errors import InputError

NOT_RUN = "not run yet"
SPARE = 64  # tokens of buffer a cache is given at least


class Macs(NamedTuple):
    """Multiply-accumulates of the products between activations; the projections are not in it.

    necessary: over the pairs the mechanism's definition attends.
    executed:  what the code really multiplies, masked and padded pairs included. A fused causal kernel is counted
               by the pairs below the diagonal; what it does up to the edge of its own blocks is its own affair.
    """

    necessary: int
    executed: int


@dataclass
class GrowableBuffer:
    """A tensor with space at its end, of which `filled` places along the token dimension are somebody's."""

    buffer: Tensor
    filled: int


@dataclass(frozen=True)
class Cache:
    """What a mechanism keeps of the tokens it has seen. Never changed: an old cache can be used again.

    tensors: by name, batch first; their layout is in the docstring of the mechanism.
    length:  tokens seen.
    buffers:   space behind some of the tensors, so that the next step need not copy them.
    """

    tensors: Mapping[str, Tensor]
    length: int = 0
    buffers: Mapping[str, GrowableBuffer] = field(default_factory=dict, repr=False)

    def extended(self, name: str, new: Tensor, dim: int) -> tuple[Tensor, GrowableBuffer | None]:
        """`tensors[name]` with `new` behind it, and the buffer it lies in.

        Written into the buffer where the place behind is still free; copied into a larger one where it is not, for
        another future has taken it or there is none. Where a gradient must flow, the two are joined afresh.
        """
        old, start = self.tensors[name], self.tensors[name].shape[dim]
        if start == 0:
            return new, None
        end = start + new.shape[dim]
        if torch.is_grad_enabled() and (old.requires_grad or new.requires_grad):
            return torch.cat([old, new], dim), None
        buffer = self.buffers.get(name)
        if buffer is None or buffer.filled != start or end > buffer.buffer.shape[dim]:
            shape = list(old.shape)
            shape[dim] = end + max(SPARE, end // 4)
            buffer = GrowableBuffer(old.new_empty(shape), start)
            buffer.buffer.narrow(dim, 0, start).copy_(old)
        buffer.buffer.narrow(dim, start, end - start).copy_(new)
        buffer.filled = end
        return buffer.buffer.narrow(dim, 0, end), buffer

    def grown(self, new: Mapping[str, Tensor], dim: int) -> tuple[dict[str, Tensor], dict[str, GrowableBuffer]]:
        """:meth:`extended` for several tensors."""
        found = {name: self.extended(name, value, dim) for name, value in new.items()}
        buffers = {name: buffer for name, (_, buffer) in found.items() if buffer is not None}
        return {name: tensor for name, (tensor, _) in found.items()}, buffers

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class Mechanism(nn.Module, ABC):
    """Base of all mechanisms.

    kernel:           what really ran in the last call, e.g. ``sdpa:flash``, ``eager``, ``banded``.
    label:            what a sentence calls it; the registered name where it is empty.
    function:         mechanisms with the same one compute the same function in different ways; empty: only itself.
    causal_only:      defined for causal attention alone.
    keeps_parameters: a function between projections that a host already has, so that any host can run it.
    """

    kernel: str
    label: ClassVar[str] = ""
    function: ClassVar[str] = ""
    causal_only: ClassVar[bool] = False
    keeps_parameters: ClassVar[bool] = False

    def __init__(self, dim: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("heads", heads)):
            if value < 1:
                raise InputError(f"{name} {value}", expected=f"{name} ≥ 1", cure=f"give a positive {name}")
        if dim % heads:
            raise InputError(
                f"heads {heads} do not divide dim {dim}",
                expected="dim a multiple of heads",
                cure=f"try {', '.join(str(n) for n in range(1, dim + 1) if dim % n == 0)} heads",
            )
        self.dim: int = dim
        self.heads: int = heads
        self.head_dim: int = dim // heads
        self.causal: bool = causal
        self.kernel = NOT_RUN

    @overload
    def forward(self, x_BTC: Tensor) -> Tensor: ...
    @overload
    def forward(self, x_BTC: Tensor, cache: None) -> Tensor: ...
    @overload
    def forward(self, x_BTC: Tensor, cache: Cache) -> tuple[Tensor, Cache]: ...

    def forward(self, x_BTC: Tensor, cache: Cache | None = None) -> Tensor | tuple[Tensor, Cache]:
        """Attend. Without a cache: the outputs. With one (of any length): outputs of the new tokens and the new cache.

        Raises :class:`InputError` for inputs of another shape, and for a cache where attention is not causal.
        """
        self._check(x_BTC, cache)
        if cache is None:
            return self.run(x_BTC, None)[0]
        y_BTC, grown = self.run(x_BTC, cache)
        assert grown is not None
        return y_BTC, grown

    @abstractmethod
    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        """The work behind `forward`, which has checked the arguments."""

    @abstractmethod
    def new_cache(self, batch: int) -> Cache:
        """An empty cache for `batch` sequences, of the dtype and on the device of the weights."""

    @abstractmethod
    def cache_bytes(self, tokens: int) -> int:
        """Bytes of one sequence's cache after `tokens` tokens, in the dtype of the weights."""

    @abstractmethod
    def macs(self, batch: int, tokens: int) -> Macs:
        """Products between activations in a full forward pass of `batch` sequences of `tokens` tokens."""

    def macs_without_gradient(self, batch: int, tokens: int) -> int:
        """Those of the necessary products that no gradient flows through, such as hashing: a step does them once."""
        return 0

    @property
    def weight(self) -> Tensor:
        """A weight, for its dtype and device."""
        return next(self.parameters())

    def pairs(self, tokens: int) -> int:
        """Query-key pairs of one head over `tokens` tokens when nothing but the causal mask is applied."""
        return tokens * (tokens + 1) // 2 if self.causal else tokens * tokens

    def _check(self, x_BTC: Tensor, cache: Cache | None) -> None:
        if x_BTC.dim() != 3 or x_BTC.shape[2] != self.dim or x_BTC.shape[1] < 1:
            raise InputError(
                f"an input of shape {tuple(x_BTC.shape)}",
                expected=f"(batch, tokens, {self.dim}) with at least one token",
                cure="pass the residual stream, batch first",
            )
        if cache is None:
            return
        if not self.causal:
            raise InputError(
                "a cache given to attention that is not causal",
                expected="causal=True, or no cache",
                cure="without a causal mask earlier outputs change with every new token: pass the whole sequence",
            )
        batches = {tensor.shape[0] for tensor in cache.tensors.values()}
        if batches != {x_BTC.shape[0]}:
            raise InputError(
                f"a cache for {sorted(batches)} sequences and an input of {x_BTC.shape[0]}",
                expected="the same batch",
                cure=f"start from new_cache({x_BTC.shape[0]})",
            )


class Projected(Mechanism):
    """Mechanisms with a projection each for queries, keys, values and the output: `q_proj k_proj v_proj o_proj`.

    eager, sdpa, flash, gqa, mqa, sliding_window and linear are of this kind and name their parameters alike, so that
    ``load_state_dict`` carries weights from one to the other (to gqa and mqa after :func:`pool_heads`).

    carries: whether weights of another of them still mean the same here; where not, swapping starts fresh.

    Cache: `keys` and `values`, each (batch, kv_heads, tokens, head_dim), keys already rotated.
    """

    carries = True

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
        kv_heads: int | None = None,
    ) -> None:
        super().__init__(dim, heads, causal=causal)
        self.kv_heads: int = heads if kv_heads is None else kv_heads
        if rope is not None:
            check_rotary(self.head_dim, rope)
        self.rope: float | None = rope
        narrow = self.kv_heads * self.head_dim
        self.q_proj: nn.Linear = nn.Linear(dim, dim, bias=bias)
        self.k_proj: nn.Linear = nn.Linear(dim, narrow, bias=bias)
        self.v_proj: nn.Linear = nn.Linear(dim, narrow, bias=bias)
        self.o_proj: nn.Linear = nn.Linear(dim, dim, bias=bias)

    @abstractmethod
    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        """Outputs (B, H, T, D). The T queries belong to the last T of the S ≥ T keys."""

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        q, k, v = self.project(x_BTC, 0 if cache is None else cache.length)
        if cache is None:
            return self.merge(self.attend(q, k, v)), None
        length = cache.length + x_BTC.shape[1]
        whole, buffers = cache.grown({"keys": k, "values": v}, 2)
        k, v = whole["keys"], whole["values"]
        if self.kept_tokens(length) < length:
            buffers = {}  # what is dropped at the front would stay in memory with them
        kept = Cache({"keys": self.kept(k), "values": self.kept(v)}, length, buffers)
        return self.merge(self.attend(q, k, v)), kept

    def project(self, x_BTC: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, split into heads; the first two rotated from position `start` on."""
        q, k, v = (
            projection(x_BTC).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.rope is not None:
            angles = turns(start, q.shape[2], q.shape[3], self.rope, q)
            q, k = turn(q, *angles), turn(k, *angles)
        return q, k, v

    def merge(self, y_BHTD: Tensor) -> Tensor:
        """Heads side by side, through the output projection."""
        y: Tensor = self.o_proj(y_BHTD.transpose(1, 2).flatten(2))
        return y

    def kept(self, x_BGSD: Tensor) -> Tensor:
        """What of the keys or values later tokens can still see."""
        return x_BGSD

    def kept_tokens(self, tokens: int) -> int:
        """How many keys the cache holds after `tokens` tokens."""
        return tokens

    def new_cache(self, batch: int) -> Cache:
        empty = self.weight.new_zeros(batch, self.kv_heads, 0, self.head_dim)
        return Cache({"keys": empty, "values": empty})

    def cache_bytes(self, tokens: int) -> int:
        return 2 * self.kept_tokens(tokens) * self.kv_heads * self.head_dim * self.weight.element_size()
