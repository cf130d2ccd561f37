"""Calibration inputs by the item: which are held out, and pieces small enough to be run at once."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.errors import InputError
from deadweight.surgery.calibration import Inputs

EVERY = 4  # every fourth image or sequence is held out


def train_held_out_split(inputs: Sequence[Inputs]) -> tuple[list[Inputs], list[Inputs]]:
    """(to calibrate on, held out for the report); raises :class:`InputError` for fewer than four items."""
    total = sum(batch.items for batch in inputs)
    if total < EVERY:
        raise InputError(
            f"{total} calibration inputs",
            expected=f"at least {EVERY}: every {EVERY}th is held out to measure on",
            cure="a hundred images, or sequences with several times as many tokens as an MLP has units, do well",
        )
    kept: list[Inputs] = []
    held: list[Inputs] = []
    before = 0
    for batch in inputs:
        places = range(batch.items)
        for part, wanted in ((held, True), (kept, False)):
            chosen = [place for place in places if ((before + place) % EVERY == EVERY - 1) == wanted]
            if chosen:
                part.append(batch.take(chosen))
        before += batch.items
    return kept, held


def chunks(inputs: Sequence[Inputs], items: int) -> list[Inputs]:
    """The same items, at most `items` at a time."""
    return [
        batch.take(slice(start, start + items)) for batch in inputs for start in range(0, batch.items, max(1, items))
    ]


def subsample(inputs: Sequence[Inputs], items: int) -> list[Inputs]:
    """`items` of the items, evenly spread: they may come class by class."""
    total = sum(batch.items for batch in inputs)
    places = {number * total // items for number in range(items)} if items < total else set(range(total))
    found: list[Inputs] = []
    before = 0
    for batch in inputs:
        chosen = [place - before for place in sorted(places) if before <= place < before + batch.items]
        if chosen:
            found.append(batch.take(chosen))
        before += batch.items
    return found
