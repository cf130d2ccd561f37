"""Before and after on held-out inputs: what is answered, how large it is, how long it takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import nn

from deadweight.compression.outcome import Judge
from deadweight.compression.report import Measured, Size
from deadweight.compression.search import Sizes
from deadweight.lab import Estimate, bootstrap_mean
from deadweight.meters.clock import Stopwatch
from deadweight.surgery.calibration import Inputs

ROUNDS = 5
SECONDS = 0.5  # a forward pass that is timed takes about this long at most, and has at most as many items as a batch


def measured(model: nn.Module, small: nn.Module, held: Sequence[Inputs]) -> tuple[Measured, ...]:
    """Every measure of ``outcome.py``, with a bootstrap over items (95 %)."""
    judge = Judge(model, held)
    found = judge.hear(small).values
    rows: list[Measured] = []
    for name, after in found.items():
        itself = {"cosine": 1.0, "agreement": 1.0, "divergence": 0.0}.get(name, 0.0)
        before = judge.own.values.get(name, [itself] * len(after))
        change = bootstrap_mean([new - old for new, old in zip(after, before, strict=True)])
        value = bootstrap_mean(after)
        rows.append(Measured(name, sum(before) / len(before), _bounded(value, name), change))
    return tuple(rows)


def _bounded(estimate: Estimate, name: str) -> Estimate:
    """An interval does not leave the range of what it is about."""
    low, high = {"cosine": (-1.0, 1.0), "agreement": (0.0, 1.0)}.get(name, (0.0, float("inf")))
    return Estimate(estimate.value, max(low, estimate.low), min(high, estimate.high), estimate.n, estimate.p)


def sizes_of(model: nn.Module, small: nn.Module, batch: Inputs, whole: Sizes, cut: Sizes) -> tuple[Size, Size, str]:
    """Both models' sizes, and the median time of a forward pass, in turns, so that what slows one slows both."""
    device = next(model.parameters()).device
    watch = Stopwatch(device)
    watch.start()
    batch.first().call(model)
    watch.stop()
    batch = batch.take(slice(max(1, int(SECONDS / max(watch.seconds, 1e-6)))))
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    for number in range(-1, ROUNDS):
        for name, one in (("before", model), ("after", small)):
            watch.start()
            batch.call(one)
            watch.stop()
            if number >= 0:  # the first round warms up
                seconds[name].append(watch.seconds)
    pair = [
        Size(int(size.parameters), int(size.macs), _bytes(one), statistics.median(seconds[name]))
        for name, one, size in (("before", model, whole), ("after", small, cut))
    ]
    weight = next(model.parameters())
    said = (
        f"{batch.items} items, {str(weight.dtype).removeprefix('torch.')}, {device}, {torch.get_num_threads()} threads"
    )
    return pair[0], pair[1], f"median of {ROUNDS} forward passes in turns: {said}"


def _bytes(model: nn.Module) -> int:
    """Of the parameters and buffers, shared ones once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    return sum(held.values())
