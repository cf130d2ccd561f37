"""The alternating timer: several pieces of work in turns, so that what slows the machine slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from deadweight.errors import InputError
from deadweight.meters.clock import Stopwatch


def interleaved(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    turns: int = 1,
    device: str | torch.device = "cpu",
    note: Callable[[float], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each piece of work in every round; a round holds all of them, in an order that moves on by one.

    Parameters
    ----------
    work:
        By name, functions without arguments.
    rounds, warmup:
        Rounds that are kept, and those before them that are not.
    turns:
        Of each in a round, of which the fastest counts: whatever else runs on the machine can only add time.
    device:
        Whose queue is waited for at both edges.
    note:
        Told the share that is done.

    Returns
    -------
    dict
        (rounds,) seconds by name, so that ratios can be taken round by round (:func:`deadweight.statistics.ratio`).

    Raises
    ------
    InputError
        No work, or fewer than one round or turn.

    Examples
    --------
    >>> seconds = interleaved({"a": lambda: None, "b": lambda: sum(range(1000))}, rounds=3)
    >>> {name: len(values) for name, values in seconds.items()}
    {'a': 3, 'b': 3}
    """
    if not work or rounds < 1 or turns < 1 or warmup < 0:
        raise InputError(
            f"{len(work)} pieces of work, {rounds} rounds, {turns} turns, {warmup} to warm up",
            expected="at least one of each, and no negative warm-up",
        )
    names, seconds = list(work), {name: list[float]() for name in work}
    watch = Stopwatch(torch.device(device))
    for number in range(-warmup, rounds):
        first = number % len(names)
        fastest = dict.fromkeys(names, float("inf"))
        for name in (names[first:] + names[:first]) * turns:
            watch.start()
            work[name]()
            watch.stop()
            fastest[name] = min(fastest[name], watch.seconds)
        for name in names if number >= 0 else ():
            seconds[name].append(fastest[name])
        if note is not None:
            note((number + warmup + 1) / (rounds + warmup))
    return seconds


__all__ = ["interleaved"]
