"""Two pieces of work in turns on the device, and the ratio of their times round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from deadweight.meters.interleaved import interleaved
from gpu_sections.plan import Row, row


def ratio_row(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    device: str,
    rounds: int,
    goal: float | None = None,
    **values: object,
) -> Row:
    """Seconds of both (medians), and the median, least and largest of ours over theirs; `goal` is an upper one."""
    took = interleaved({"ours": ours, "theirs": theirs}, rounds=rounds, warmup=1, device=device)
    ratios = [one / two for one, two in zip(took["ours"], took["theirs"], strict=True)]
    found = statistics.median(ratios)
    reached = {} if goal is None else {"goal": goal, "reached": found <= goal}
    seconds = {f"{who}_seconds": statistics.median(each) for who, each in took.items()}
    return row(name, ratio=found, low=min(ratios), high=max(ratios), **seconds, **reached, **values)
