"""Attention alone, forward and backward: ours in turns with every other kernel here that solves the same problem."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from deadweight.meters import machine_peak
from deadweight.meters.interleaved import interleaved
from gpu_sections.kernels import Attend, Problem, problems
from gpu_sections.nearness import error
from gpu_sections.plan import Emit, Plan, attempt, released, row

OURS, BASE = "ours", "causal"
GOAL = 1.1  # times the fastest kernel for the same problem
SAME = 0.05  # of two bfloat16 results; a kernel further off solves another problem, and its time is no comparison


def speed(plan: Plan, emit: Emit) -> None:
    heads, width, dtype = (2, 16, torch.float32) if plan.rehearsal else (12, 64, torch.bfloat16)
    lengths = ((320, 1),) if plan.rehearsal else ((8192, 1), (2048, 4))  # the long one first: there it matters
    peak = machine_peak(dtype, device=plan.device, size=64 if plan.rehearsal else 8192, seconds=0.01)
    for tokens, batch in lengths:
        base: float | None = None
        for name, problem in problems(heads, width).items():
            with attempt(emit, f"{name}, {tokens} tokens"):
                given = inputs(batch, heads, tokens, width, dtype, plan.device)
                found = compared(name, problem, given, plan, emit)
                macs = 3 * batch * heads * problem.macs(tokens)  # two gradients for each product
                if name == BASE and OURS in found:
                    base = statistics.median(found[OURS])
                told(f"{name}, {tokens} tokens", problem, found, 2 * macs / peak, base, emit)
            released()


def inputs(
    batch: int, heads: int, tokens: int, width: int, dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(batch, heads, tokens, width, generator=draw).to(device, dtype) for _ in range(4)]
    q, k, v = (x.requires_grad_() for x in made[:3])
    return q, k, v, made[3]


def both_ways(attend: Attend, q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    y = attend(q, k, v)
    return y, *torch.autograd.grad(y, (q, k, v), dy)


def compared(name: str, problem: Problem, given: tuple[Tensor, ...], plan: Plan, emit: Emit) -> dict[str, list[float]]:
    """Seconds of all that work here, in turns. One that is not here, or not the same, is a row and no more."""
    works: dict[str, Callable[[], object]] = {}
    tokens = given[0].shape[2]
    every: Mapping[str, Attend] = {**({OURS: problem.ours} if problem.ours else {}), **problem.peers}
    wanted: tuple[Tensor, ...] | None = None
    for who, attend in every.items():
        with attempt(emit, f"{name}, {tokens} tokens: {who}"):
            found = both_ways(attend, *given)
            off = 0.0 if wanted is None else error(found, wanted)
            wanted = found if wanted is None else wanted
            if off > SAME:
                emit(row(f"{name}, {tokens} tokens: {who}", "wrong", "another result than the first", error=off))
                continue
            works[who] = partial(both_ways, attend, *given)
    del wanted
    rounds = 2 if plan.rehearsal else 15
    return interleaved(works, rounds=rounds, warmup=1, device=plan.device) if works else {}


def told(
    name: str, problem: Problem, seconds: dict[str, list[float]], ideal: float, base: float | None, emit: Emit
) -> None:
    """A row each; ours says how far it is above the fastest other."""
    middle = {who: statistics.median(took) for who, took in seconds.items()}
    others = {who: took for who, took in middle.items() if who != OURS}
    for who, took in middle.items():
        values = {
            "seconds": took, "low": min(seconds[who]), "high": max(seconds[who]), "mfu": ideal / took,
            "over_sdpa": None if base is None else took / base,
        }  # fmt: skip
        if who == OURS:
            values["kernel"] = problem.kernel()
            if others:
                best = min(others, key=lambda one: others[one])
                over = took / others[best]
                values |= {"best": best, "over_best": over, "goal": GOAL, "reached": over <= GOAL}
        emit(row(f"{name}: {who}", problem=name.partition(",")[0], who=who, **values))
