"""Timing attention layers side by side: every round holds all of them, so that drift of the machine hits all alike."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deadweight.attention import Cache, Mechanism
from deadweight.lab import Estimate, Json, Outcome
from deadweight.meters import measure
from deadweight.meters.clock import Stopwatch

WARM_UP = 2
BOOTSTRAP = 4000


@dataclass
class _Runner:
    """One layer in the race: what it was timed at, or the error that took it out."""

    layer: Mechanism
    seconds: list[float]
    decode: list[float]
    metered: dict[str, Json] | None = None
    cache: Cache | None = None
    kernel: str | None = None
    error: str | None = None


def time_mechanisms(
    layers: dict[str, Mechanism],
    x_BTC: Tensor,
    rounds: int,
    *,
    reference: str,
    note: Callable[[str, float], None] | None = None,
) -> Outcome:
    """Forward and backward of each layer, and one decoding step after as many tokens, `rounds` times in turn.

    Timed rounds carry no meter but the clock; memory and energy come from rounds of their own. A layer that raises is
    reported with its error and the others go on.

    Returns
    -------
    Outcome
        `result`: a layer's parameters, MACs and cache bytes. `measured`: seconds with the bootstrap interval of their
        median, ratios to `reference` paired by round, a metered round's cost, the errors. `context`: kernels.
    """
    runners = {name: _Runner(layer, [], []) for name, layer in layers.items()}
    names = list(runners)
    for number in range(WARM_UP + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # no layer always runs after the same one
            _round(runners[name], x_BTC, timed=number >= WARM_UP)
        if note is not None:
            note(f"{x_BTC.shape[1]:,} tokens, round {number + 1} of {WARM_UP + rounds}", number / (WARM_UP + rounds))
    for runner in runners.values():
        _try(runner, lambda one: _meter(one, x_BTC))
    batch, tokens = x_BTC.shape[:2]
    result = {name: _facts(layer, batch, tokens) for name, layer in layers.items()}
    base = runners.get(reference)
    measured = {
        name: _measured(runner, None if base is None or base.error else base)
        for name, runner in runners.items()
        if runner.error is None
    }
    failed = {name: runner.error for name, runner in runners.items() if runner.error is not None}
    return Outcome(
        {"mechanisms": result, "reference": reference},
        {"mechanisms": measured, "failed": failed},
        {"kernels": {name: runner.kernel for name, runner in runners.items()}},
    )


def _round(runner: _Runner, x_BTC: Tensor, *, timed: bool) -> None:
    def work(one: _Runner) -> None:
        seconds = _timed(lambda: _step(one.layer, x_BTC), x_BTC.device)
        one.kernel = one.layer.kernel
        decode = _decode_step(one, x_BTC)
        if timed:
            one.seconds.append(seconds)
            one.decode.append(decode)

    _try(runner, work)


def _try(runner: _Runner, work: Callable[[_Runner], None]) -> None:
    """One layer's failure, whatever it is, is that layer's own: it is kept and told, and the race goes on."""
    if runner.error is not None:
        return
    try:
        work(runner)
    except Exception as problem:
        runner.error = "".join(traceback.format_exception_only(problem)).strip()


def _step(layer: Mechanism, x_BTC: Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    inputs = x_BTC.detach().requires_grad_()
    layer(inputs).sum().backward()


@torch.no_grad()
def _decode_step(runner: _Runner, x_BTC: Tensor) -> float:
    """Seconds of one more token after all of `x_BTC`."""
    layer = runner.layer
    if runner.cache is None:
        _, runner.cache = layer(x_BTC, cache=layer.new_cache(x_BTC.shape[0]))
    return _timed(lambda: layer(x_BTC[:, :1], cache=runner.cache), x_BTC.device)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    watch = Stopwatch(device)
    watch.start()
    work()
    watch.stop()
    return watch.seconds


def _meter(runner: _Runner, x_BTC: Tensor) -> None:
    with measure(energy=True, device=x_BTC.device) as cost:
        _step(runner.layer, x_BTC)
    runner.metered = cost.as_json()


def _facts(layer: Mechanism, batch: int, tokens: int) -> dict[str, Json]:
    """What follows from the layer alone; MACs of the forward pass."""
    macs = layer.macs(batch, tokens)
    return {
        "parameters": sum(p.numel() for p in layer.parameters()),
        "macs_necessary": macs.necessary,
        "macs_executed": macs.executed,
        "cache_bytes": layer.cache_bytes(tokens),
        "cache_bytes_a_token": layer.cache_bytes(tokens) / tokens,
    }


def _measured(runner: _Runner, base: _Runner | None) -> dict[str, Json]:
    ratio = None
    if base is not None:
        ratio = _json(median_interval([one / two for one, two in zip(runner.seconds, base.seconds, strict=True)]))
    return {
        "seconds": _json(median_interval(runner.seconds)),
        "decode_seconds": _json(median_interval(runner.decode)),
        "ratio": ratio,
        "rounds": runner.seconds,
        "metered": runner.metered,
    }


def _json(estimate: Estimate) -> dict[str, Json]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def median_interval(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median with a percentile bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(data), size=(BOOTSTRAP, len(data)))
    low, high = np.quantile(np.median(data[drawn], axis=1), [0.025, 0.975])
    return Estimate(float(np.median(data)), float(low), float(high), len(data))
