"""Before and after on held-out inputs: what is answered, how large it is, how long it takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from deadweight.compression.outcome import Evaluator, Outcomes
from deadweight.compression.report import Measured, Size
from deadweight.compression.search import Sizes
from deadweight.meters.clock import Stopwatch
from deadweight.statistics import Estimate, accuracy_loss, mean, rate
from deadweight.surgery.calibration import Inputs

ROUNDS, MOST = 5, 50  # forward passes of each model that are timed, at least and at most
SECONDS = 0.5  # after `ROUNDS` of them no more are run once they took this long


def compared(
    model: nn.Module, small: nn.Module, held: Sequence[Inputs], whole: Sizes, cut: Sizes
) -> tuple[tuple[Measured, ...], Size, Size, str]:
    """Every measure of ``outcome.py`` with its interval over items, both sizes, and what was timed.

    The passes that give the answers are those that are timed: in turns, batch by batch, so that what slows one model
    slows the other. A last batch that is smaller than the first is not timed.
    """
    own, found = Outcomes(), Outcomes()
    clocks = [_Clock(model), _Clock(small)]
    for one in (model, small):
        held[0].first().call(one)  # warms up
    for batch in held:
        for clock in clocks:
            clock.counts = batch.items == held[0].items
        with clocks[0], clocks[1]:
            evaluator = Evaluator(model, [batch])
            own.extend(evaluator.own)
            found.extend(evaluator.evaluate(small))
    for clock in clocks:
        clock.counts = True
    while (rounds := len(clocks[0].seconds)) < MOST and (
        rounds < ROUNDS or sum(clocks[0].seconds + clocks[1].seconds) < SECONDS
    ):
        for clock in clocks:
            with clock:
                held[0].call(clock.model)
    weight = next(model.parameters())
    sizes = [
        Size(int(size.parameters), int(size.macs), _bytes(clock.model), statistics.median(clock.seconds))
        for clock, size in zip(clocks, (whole, cut), strict=True)
    ]
    said = (
        f"median of {len(clocks[0].seconds)} forward passes in turns: {held[0].items} items, "
        f"{str(weight.dtype).removeprefix('torch.')}, {weight.device}, {torch.get_num_threads()} threads"
    )
    return _measures(own, found), sizes[0], sizes[1], said


class _Clock:
    """Times the calls of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.counts, self.seconds = model, True, list[float]()
        self.watch = Stopwatch(next(model.parameters()).device)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        self.handles = [
            self.model.register_forward_pre_hook(lambda module, args: self.watch.start()),
            self.model.register_forward_hook(lambda module, args, output: self._stop()),
        ]

    def __exit__(self, *problem: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _stop(self) -> None:
        self.watch.stop()
        if self.counts:
            self.seconds.append(self.watch.seconds)


def _measures(own: Outcomes, found: Outcomes) -> tuple[Measured, ...]:
    rows: list[Measured] = []
    for name, after in found.values.items():
        itself = {"cosine": 1.0, "agreement": 1.0, "divergence": 0.0}.get(name, 0.0)
        before = own.values.get(name, [itself] * len(after))
        if name == "agreement":  # right or wrong, item by item
            change, value = accuracy_loss(after, before), rate(after)
        else:
            change, value = mean([new - old for new, old in zip(after, before, strict=True)]), mean(after)
        rows.append(Measured(name, sum(before) / len(before), _bounded(value, name), change))
    return tuple(rows)


def _bounded(estimate: Estimate, name: str) -> Estimate:
    """An interval does not leave the range of what it is about."""
    low, high = {"cosine": (-1.0, 1.0), "agreement": (0.0, 1.0)}.get(name, (0.0, float("inf")))
    return replace(
        estimate,
        low=None if estimate.low is None else max(low, estimate.low),
        high=None if estimate.high is None else min(high, estimate.high),
    )


def _bytes(model: nn.Module) -> int:
    """Of the parameters and buffers, shared ones once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    return sum(held.values())
