"""Joules, time and memory of the mechanisms in GPT-2 small, forward and in a training step.

The counter is read through zeus; the power at rest is measured just before, with the device awake, and taken off.
Beside the counter stands the integral of the sampled power. The shortest length comes first, so that a run that is cut
short holds the paper's table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from deadweight.meters import EnergyDevice, IdlePower, Reading, RepeatedCost, idle_power, machine_peak, measure_repeated
from deadweight.studies.attention.timing.subject import Built, Subject
from gpu_sections.board import energy_of_the_board
from gpu_sections.paper import EIGHT
from gpu_sections.plan import MISSING, Emit, Plan, Row, attempt, released, row

BEYOND = ("block_sparse", "differential", "gated_delta", "retention")


@dataclass(frozen=True)
class Sizes:
    """rounds: by length, how often each mechanism is measured. tokens: a step, so that lengths compare."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    vocabulary: int = 50_257
    tokens: int = 8192
    rounds: Mapping[int, int] | None = None
    window: int = 256
    seconds: float = 1.0  # the least that the counter supports
    rest: float = 5.0
    peak: int = 8192
    dtype: str = "bfloat16"

    def options(self) -> dict[str, dict[str, int]]:
        """As the study of the paper has them."""
        return {
            "gqa": {"groups": 4 if self.heads % 4 == 0 else 1},
            "sliding_window": {"window": self.window},
            "lsh": {"buckets": 16, "rounds": 4, "window": 64},
            "mla": {"rope_dim": 32},
        }


FULL = Sizes(rounds={512: 2, 2048: 1, 8192: 1})
TINY = Sizes(32, 1, 2, 64, 128, {32: 2, 64: 1}, 16, 0.005, 0.01, 64, "float32")


def joules(plan: Plan, emit: Emit) -> None:
    sizes = TINY if plan.rehearsal else FULL
    devices, note = energy_of_the_board(plan)
    peak = machine_peak(getattr(torch, sizes.dtype), device=plan.device, size=sizes.peak, seconds=sizes.seconds / 4)
    before = rest(devices, sizes, emit, "power at rest, before", note)
    for place, (length, rounds) in enumerate((sizes.rounds or {}).items()):
        for number in range(rounds):
            names = [*EIGHT, *(BEYOND if place == number == 0 else ())]
            for name in names if number % 2 == 0 else reversed(names):  # what drifts falls on both ends
                with attempt(emit, f"{name}, {length} tokens"):
                    emit(cost_of(name, length, number, sizes, plan, devices, before, peak))
                released()
    rest(devices, sizes, emit, "power at rest, after", note)


def rest(devices: Sequence[EnergyDevice], sizes: Sizes, emit: Emit, name: str, note: str) -> IdlePower:
    idle = idle_power(devices, seconds=sizes.rest)
    found = idle.total
    status = MISSING if found.value is None else "ok"
    emit(row(name, status, "; ".join(part for part in (found.reason, note) if part), watts=found.value))
    return idle


def cost_of(
    name: str,
    length: int,
    number: int,
    sizes: Sizes,
    plan: Plan,
    devices: Sequence[EnergyDevice],
    idle: IdlePower,
    peak: float,
) -> Row:
    batch = max(1, sizes.tokens // length)
    built = Subject(
        name, sizes.options().get(name, {}), "model", sizes.width, sizes.heads, sizes.depth, sizes.vocabulary, batch,
        length, sizes.dtype, device=plan.device,
    ).build()  # fmt: skip

    @torch.no_grad()
    def forward() -> None:
        built.network(built.inputs())

    def cost(work: Callable[[], object]) -> RepeatedCost:
        return measure_repeated(work, energy=devices, seconds=sizes.seconds, device=plan.device, idle=idle)

    told = {"forward": per_token(cost(forward), batch * length), "step": per_token(cost(built.step), batch * length)}
    operations = needed(built, batch, length, sizes.depth)
    for one, share in ((told["forward"], operations[0]), (told["step"], operations[1])):
        one["mfu"] = share / one["seconds"] / peak
    return row(
        f"{name}, {length} tokens", mechanism=name, length=length, batch=batch, round=number, kernel=built.kernel,
        parameters=sum(weight.numel() for weight in built.network.parameters()), peak_flops=peak, **told,
    )  # fmt: skip


def per_token(cost: RepeatedCost, tokens: int) -> Row:
    whole = cost.whole
    apart = list(whole.energy_disagreement.values())
    return {
        "seconds": cost.seconds,
        "tokens_per_second": tokens / cost.seconds,
        "peak_bytes": whole.peak_bytes,
        "times": cost.times,
        "joules_per_token": shared(cost.energy, tokens),
        "joules_per_token_above_idle": shared(cost.energy_above_idle, tokens),
        "watts": whole.power.value,
        "energy": cost.energy.provenance,
        "energy_reason": cost.energy.reason,
        "integrated_over_counted": 1 + apart[0] if apart else None,
    }


def shared(reading: Reading, tokens: int) -> float | None:
    return None if reading.value is None else reading.value / tokens


def needed(built: Built, batch: int, length: int, depth: int) -> tuple[int, int]:
    """Operations the definition needs, two a multiply-accumulate: of a forward pass, and of a step (thrice)."""
    layers = [module for module in built.network.modules() if isinstance(module, nn.Linear)]
    weights = batch * length * sum(layer.weight.numel() for layer in layers)
    pairs = depth * built.attention.macs(batch, length).necessary
    once = depth * built.attention.macs_without_gradient(batch, length)
    return 2 * (weights + pairs), 2 * (3 * (weights + pairs) - 2 * once)
