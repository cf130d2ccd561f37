"""PyTorch's compiled `flex_attention` on a GPU, for masks that follow from positions alone: the window, the blocks.

One kernel for all heads that skips what no query sees; what the mechanisms do otherwise is shaped for a processor's
caches. Compiling takes seconds for a mask and a length, so only training in 16 bits takes it, whose lengths repeat; and
only where it proves itself on a small problem first.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = "flex"
LEAST, MOST = 256, 32_768  # tokens: below it hides little; above it the mask's table of pairs is large while it is made
WIDTHS = (16, 32, 64, 128, 256)
AMPERE = (8, 0)  # the first with bfloat16 in its matrix units
KERNELS = 64  # compiled ones kept; beyond PyTorch's own 8 it would go on uncompiled, with all scores in memory
NEAR = 0.05  # of a small problem's result and gradients in 16 bits, relative to their largest

Sees = Callable[[Any, Any, Any, Any], Any]  # (batch, head, query, key) -> whether the query sees the key


@lru_cache(32)
def band(window: int, causal: bool) -> Sees:
    """Keys at a distance below `window`; the same function for the same arguments, which is compiled once."""

    def sees(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (j <= i) & (i - j < window) if causal else (j - i < window) & (i - j < window)

    return sees


@lru_cache(32)
def blocks(block: int, local: int, stride: int, causal: bool) -> Sees:
    """Blocks at a distance below `local`, and every `stride`-th."""

    def sees(b: Any, h: Any, i: Any, j: Any) -> Any:
        mine, other = i // block, j // block
        near = (mine - other < local) & (other - mine < local)
        seen = near | (other % stride == stride - 1)
        return (j <= i) & seen if causal else seen

    return sees


def fits(q_BHTD: Tensor, k_BHSD: Tensor) -> bool:
    """Whether :func:`flex_attention` is to be taken for these queries and keys."""
    tokens, width = q_BHTD.shape[2], q_BHTD.shape[3]
    return (
        q_BHTD.device.type == "cuda"
        and q_BHTD.dtype in (torch.bfloat16, torch.float16)
        and tokens == k_BHSD.shape[2]
        and LEAST <= tokens <= MOST
        and width in WIDTHS
        and torch.is_grad_enabled()
        and q_BHTD.requires_grad
        and not torch.compiler.is_compiling()
        and works(q_BHTD.device, q_BHTD.dtype, width)
    )


def flex_attention(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, sees: Sees) -> Tensor:
    """softmax(QKᵀ/√d) V over the keys that `sees` leaves, (B, H, T, D); `sees` from :func:`band` or :func:`blocks`."""
    mask = block_mask(sees, q_BHTD.shape[2], str(q_BHTD.device))
    from torch._dynamo import config  # PyTorch documents the setting, and has no other way to it

    with config.patch(recompile_limit=KERNELS):
        y_BHTD: Tensor = compiled()(q_BHTD, k_BHTD, v_BHTD, block_mask=mask)
    return y_BHTD


@lru_cache(1)
def compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled_one: Callable[..., Any] = torch.compile(flex_attention)
    return compiled_one


@lru_cache(16)
def block_mask(sees: Sees, tokens: int, device: str) -> Any:
    """Which blocks of pairs are seen at all, wholly or in part."""
    from torch.nn.attention.flex_attention import create_block_mask

    with torch.no_grad():
        return create_block_mask(sees, None, None, tokens, tokens, device=device)


@lru_cache(16)
def works(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the compiled kernel runs here, forward and backward, and agrees with a masked SDPA on a small problem.

    Where it does not, a warning says why, once, and the mechanisms go on without it.
    """
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(device) < AMPERE:
        return False
    try:
        off = disagreement(device, dtype, width)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # compilers fail in many ways: no C compiler, no room on the chip, an unknown device
        why = f"{type(problem).__name__}: {problem}".splitlines()[0]
    else:
        if off <= NEAR:
            return True
        why = f"it is {off:.0%} off on a small problem"
    warnings.warn(f"flex_attention is not used on {device} in {dtype}: {why}", RuntimeWarning, stacklevel=2)
    return False


def disagreement(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """The largest difference of output and gradients from SDPA with a mask, relative to their largest value."""
    draw, window = torch.Generator().manual_seed(0), 40
    given = [torch.randn(1, 2, LEAST, width, generator=draw).to(device, dtype).requires_grad_() for _ in range(3)]
    place = torch.arange(LEAST, device=device)
    seen = band(window, True)(0, 0, place[:, None], place[None])
    with torch.enable_grad():
        results = [
            flex_attention(given[0], given[1], given[2], band(window, True)),
            F.scaled_dot_product_attention(given[0], given[1], given[2], seen),
        ]
        both = [[y, *torch.autograd.grad(y.sum(), given)] for y in results]
    pairs = [(one.detach().double(), two.detach().double()) for one, two in zip(*both, strict=True)]
    return max(float((one - two).abs().max() / two.abs().max()) for one, two in pairs)
