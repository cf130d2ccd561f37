"""Problems of attention on split heads, ours and the kernels of others that solve the same: causal, window, blocks,
documents, linear, retention, the gated delta rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from deadweight.attention import mechanism
from deadweight.attention.gated_delta import gated_delta
from deadweight.attention.linear_chunks import feature_map
from deadweight.attention.lsh_blocks import unit
from deadweight.attention.retention import retain
from deadweight.errors import MachineError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, H, T, D) -> (B, H, T, D)
Sees = Callable[[Any, Any], Any]
WINDOW, BLOCK, LOCAL, STRIDE, DOCUMENT = 256, 64, 4, 4, 1024


@dataclass(frozen=True)
class Problem:
    """ours: None where deadweight has no mechanism for it. kernel: what ours says that it ran. macs: those that the
    forward pass of a head over so many tokens needs."""

    peers: dict[str, Attend]
    macs: Callable[[int], int]
    ours: Attend | None = None
    kernel: Callable[[], str] = field(default=lambda: "chunked")


def problems(heads: int, width: int) -> dict[str, Problem]:
    """By name; every peer may find that what it needs is not here."""
    dim = heads * width
    sdpa, window, blocks, linear = (
        mechanism(name, dim, heads, **options)
        for name, options in (
            ("sdpa", {}), ("sliding_window", {"window": WINDOW}),
            ("block_sparse", {"block": BLOCK, "local": LOCAL, "stride": STRIDE}), ("linear", {}),
        )
    )  # fmt: skip
    return {
        "causal": Problem(
            {
                **{f"SDPA {one.name.lower()}": pinned(one) for one in FUSED},
                "flex_attention": flex(causal),
                "flash-attn": flash_library,
            },
            lambda tokens: sdpa.macs(1, tokens).necessary // heads,
            sdpa.attend,
            lambda: sdpa.kernel,
        ),
        f"window {WINDOW}": Problem(
            {
                "flex_attention": flex(near),
                "SDPA with a mask": masked(near),
                "flash-attn": lambda q, k, v: flash_library(q, k, v, window=(WINDOW - 1, 0)),
            },
            lambda tokens: window.macs(1, tokens).necessary // heads,
            window.attend,
            lambda: window.kernel,
        ),
        "block-sparse": Problem(
            {"flex_attention": flex(sparse), "SDPA with a mask": masked(sparse)},
            lambda tokens: blocks.macs(1, tokens).necessary // heads,
            blocks.attend,
            lambda: blocks.kernel,
        ),
        f"documents of {DOCUMENT}": Problem(
            {"flex_attention": flex(document), "SDPA with a mask": masked(document)},
            lambda tokens: tokens * min(tokens, DOCUMENT) * width,
        ),
        "linear": Problem(
            {"fla": fla_linear},
            lambda tokens: linear.macs(1, tokens).necessary // heads,
            linear.attend,
            lambda: linear.kernel,
        ),
        "retention": Problem({"fla": fla_retention}, lambda tokens: tokens * 2 * width**2, our_retention),
        "gated delta rule": Problem({"fla": fla_delta}, lambda tokens: tokens * 3 * width**2, our_delta),
    }


FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def causal(i: Any, j: Any) -> Any:
    """Whether query i sees key j; this and the next ones take numbers and tensors alike."""
    return j <= i


def near(i: Any, j: Any) -> Any:
    return causal(i, j) & (i - j < WINDOW)


def sparse(i: Any, j: Any) -> Any:
    return causal(i, j) & ((i // BLOCK - j // BLOCK < LOCAL) | ((j // BLOCK) % STRIDE == STRIDE - 1))


def document(i: Any, j: Any) -> Any:
    return causal(i, j) & (i // DOCUMENT == j // DOCUMENT)


def pinned(backend: SDPBackend) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return attend


def masked(sees: Sees) -> Attend:
    @lru_cache(2)
    def mask(tokens: int, device: torch.device) -> Tensor:
        place = torch.arange(tokens, device=device)
        seen: Tensor = sees(place[:, None], place[None])
        return seen

    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask(q.shape[2], q.device))


@lru_cache(1)
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(sees: Sees) -> Attend:
    """PyTorch's flex_attention, compiled for the mask; the mask's blocks are found once for a length."""
    from torch.nn.attention.flex_attention import create_block_mask

    @lru_cache(2)
    def mask(tokens: int, device: torch.device) -> Any:
        return create_block_mask(lambda b, h, i, j: sees(i, j), None, None, tokens, tokens, device=str(device))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        on_a_gpu(q, "flex_attention, forward and backward")
        y: Tensor = _compiled()(q, k, v, block_mask=mask(q.shape[2], q.device))
        return y

    return attend


def on_a_gpu(q: Tensor, what: str) -> None:
    if q.device.type == "cpu":
        raise MachineError(f"{what} on a CPU", expected="a GPU", cure="its kernels are for GPUs alone")


def flash_library(q: Tensor, k: Tensor, v: Tensor, window: tuple[int, int] = (-1, -1)) -> Tensor:
    from flash_attn import flash_attn_func

    on_a_gpu(q, "flash-attn")
    y: Tensor = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=True, window_size=window)
    return y.transpose(1, 2)


def _tokens_first(*given: Tensor) -> list[Tensor]:
    """(B, T, H, D), which is how fla lays them."""
    return [x.transpose(1, 2).contiguous() for x in given]


def fla_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from fla.ops.linear_attn import chunk_linear_attn

    on_a_gpu(q, "fla")
    y, _ = chunk_linear_attn(*_tokens_first(feature_map(q), feature_map(k), v), scale=1.0, normalize=True)
    return y.transpose(1, 2)


def fla_retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from fla.ops.retention import chunk_retention

    on_a_gpu(q, "fla")
    y, _ = chunk_retention(*_tokens_first(q, k, v))
    return y.transpose(1, 2)


def our_retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    empty = q.new_zeros(*q.shape[:2], q.shape[3], q.shape[3], dtype=torch.float32)
    return retain(q * q.shape[3] ** -0.5, k, v, empty, min(64, q.shape[2]))[0]


def gates(q: Tensor) -> tuple[Tensor, Tensor]:
    """log α and β (B, H, T), drawn once for a shape."""
    draw = torch.Generator().manual_seed(5)
    keep, write = (torch.randn(q.shape[:3], generator=draw).to(q.device) for _ in range(2))
    return F.logsigmoid(keep + 4.0), write.sigmoid()


def our_delta(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    keep, write = gates(q)
    empty = q.new_zeros(*q.shape[:2], q.shape[3], q.shape[3], dtype=torch.float32)
    chunk = min(64, 1 << (q.shape[2] - 1).bit_length())
    return gated_delta(unit(q) * q.shape[3] ** -0.5, unit(k), v, keep, write, empty, chunk)[0]


def fla_delta(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    on_a_gpu(q, "fla")
    keep, write = (x.transpose(1, 2).contiguous() for x in gates(q))
    y, _ = chunk_gated_delta_rule(
        *_tokens_first(unit(q), unit(k), v), keep, write.to(q.dtype), scale=q.shape[3] ** -0.5
    )
    return y.transpose(1, 2)
