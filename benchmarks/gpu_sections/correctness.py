"""Every part on the device, in float32 and in 16 bits, against the same on the CPU in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from deadweight.attention import MECHANISMS, Mechanism, mechanism
from gpu_sections.correct_parts import PARTS
from gpu_sections.nearness import near, precisions
from gpu_sections.plan import OK, WRONG, Emit, Plan, attempt, row

OPTIONS = {
    "gqa": {"groups": 2},
    "sliding_window": {"window": 48},
    "lsh": {"buckets": 8, "rounds": 3, "window": 16},
    "block_sparse": {"block": 32, "local": 2, "stride": 3},
}
CUTS = (100, 1, 1, 27)  # tokens a decoding is fed at a time


def correctness(plan: Plan, emit: Emit) -> None:
    torch.backends.cudnn.allow_tf32 = False  # convolutions would else be of a precision of their own
    width, heads, tokens = (32, 2, 65) if plan.rehearsal else (256, 4, 1300)
    for name in MECHANISMS.names():
        with attempt(emit, name):
            torch.manual_seed(0)
            exact = mechanism(name, width, heads, **OPTIONS.get(name, {})).double()
            with torch.no_grad():  # as initialised, scores are so small that every softmax is nearly flat
                for weight in exact.parameters():
                    weight.mul_(2.0)
            draw = torch.Generator().manual_seed(1)
            x, seed = (torch.randn(2, tokens, width, dtype=torch.float64, generator=draw) for _ in range(2))
            wanted = both_ways(exact, x, seed)
            for told, dtype, bound in precisions(plan):
                with attempt(emit, f"{name}, {told}"):
                    emit(compared(name, told, exact, (x, seed), wanted, plan.device, dtype, bound))
            with attempt(emit, f"{name}, decoding"):
                emit(decoded(name, exact, x, plan.device))
    for name, part in PARTS.items():
        with attempt(emit, name):
            part(plan, emit)


def both_ways(m: Mechanism, x: Tensor, seed: Tensor) -> list[Tensor]:
    """Output, and the gradients of input and weights."""
    x = x.clone().requires_grad_()
    leaves = [x, *(weight for weight in m.parameters() if weight.requires_grad)]
    y = m(x)
    return [y.detach(), *torch.autograd.grad(y, leaves, seed, allow_unused=True, materialize_grads=True)]


def compared(
    name: str,
    told: str,
    exact: Mechanism,
    given: Sequence[Tensor],
    wanted: Sequence[Tensor],
    device: str,
    dtype: torch.dtype,
    bound: float,
) -> dict[str, object]:
    rough = copy.deepcopy(exact).to(device, dtype)
    found = both_ways(rough, *(one.to(device, dtype) for one in given))
    if name == "lsh" and dtype.itemsize == 2:  # other queries, so other buckets: no number to compare with
        finite = all(bool(one.isfinite().all()) for one in found)
        why = "rounded queries fall into other buckets: only that all is finite"
        return row(f"{name}, {told}", OK if finite else WRONG, why, kernel=rough.kernel)
    return near(f"{name}, {told}", found[:1], wanted[:1], bound, rest=(found[1:], wanted[1:]), kernel=rough.kernel)


@torch.no_grad()
def decoded(name: str, exact: Mechanism, x: Tensor, device: str) -> dict[str, object]:
    """Fed piece by piece through its cache, in float32, against the whole in float64."""
    m = copy.deepcopy(exact).float().to(device)
    cache, found, start = m.new_cache(len(x)), [], 0
    for count in (*CUTS, x.shape[1]):
        part = x[:, start : start + count].to(device, torch.float32)
        if part.shape[1]:
            y, cache = m(part, cache)
            found.append(y)
        start += count
    return near(f"{name}, decoding", [torch.cat(found, 1)], [exact(x)], 1e-4, kernel=m.kernel)


__all__ = ["correctness"]
