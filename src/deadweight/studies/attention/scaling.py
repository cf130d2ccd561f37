"""How the time of a layer grows with the length, and where mechanisms overtake the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pandas as pd

from deadweight.lab import Record, Records
from deadweight.report import Table
from deadweight.statistics import chosen, crossover, exponent
from deadweight.studies.attention.names import named, same_function
from deadweight.studies.attention.records import by_length, layers
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.page import with_interval
from deadweight.studies.frame.quantity import EXPONENT, TOKENS
from deadweight.studies.frame.verdicts import Settled


class Scaling(Derived):
    """Power laws over the timed lengths, and crossover lengths; from the timing cells."""

    kind: ClassVar[str] = "scaling"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        timed = layers(records)
        found = by_length(timed)
        if not found:
            return []
        return [*_extremes(timed, found), *_crossings(timed, found), *_exponents(timed, found)]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        timed = layers(records)
        found, effects = by_length(timed), {pair.effect.id: pair.effect for pair in settled}
        if not found:
            return []
        base = str(timed[-1].result["reference"])
        rows = []
        for name, measured in found.items():
            whole, last = effects[f"exponent-{name}"], effects[f"exponent-last-{name}"]
            crossing = effects.get(f"crossover-{name}")
            before, after = sorted(measured)[-2:]
            rows.append(
                {
                    "mechanism": name,
                    "exponent": with_interval(whole.estimate, EXPONENT),
                    "over the last doubling" if after == 2 * before else "over the last two lengths": (
                        last.estimate.value
                    ),
                    f"against {base}": "–" if name == base else crossing.detail if crossing else "no reference",
                }
            )
        caption = (
            "Seconds of a training step as a power of the length, fitted over all timed lengths and over the last two; "
            f"and where its time crosses that of {base}, between timed lengths."
        )
        return [Table("How time grows with length", pd.DataFrame(rows), caption)]


Rounds = Mapping[str, Mapping[int, Sequence[float]]]


def _extremes(timed: Sequence[Record], found: Rounds) -> list[Effect]:
    """The time of which layer grows slowest and fastest with the length."""
    powers = {name: exponent(rounds) for name, rounds in found.items()}
    if len(powers) < 2:
        return []
    order = sorted(powers, key=lambda name: powers[name].value)
    slow, fast = order[0], order[-1]
    lengths = [int(record.cell.params["length"]) for record in timed]
    statement = (
        f"From {lengths[0]:,} to {lengths[-1]:,} tokens the time of a layer of {named(slow)} grows as the length to "
        f"the power {powers[slow].value:.2f}, that of {named(fast)} to the power {powers[fast].value:.2f}."
    )
    estimate = powers[slow] if not powers[slow].covers else chosen(powers[slow], len(powers))
    return [Effect("scaling", "", "", EXPONENT, estimate, evidence=_keys(timed), statement=statement)]


def _exponents(timed: Sequence[Record], found: Rounds) -> list[Effect]:
    return [
        Effect(f"{what}-{name}", "", "", EXPONENT, exponent(rounds), evidence=_keys(timed), shown=False,
               statement=f"{name}: the power of the length.")
        for name, whole in found.items()
        for what, rounds in (("exponent", whole), ("exponent-last", dict(sorted(whole.items())[-2:])))
    ]  # fmt: skip


def _crossings(timed: Sequence[Record], found: Rounds) -> list[Effect]:
    """From which length on a mechanism is faster than the reference, where that lies among the timed lengths."""
    base = str(timed[-1].result["reference"])
    effects = []
    for name in found:
        if name == base or base not in found or len(set(found[name]) & set(found[base])) < 2:
            continue
        met = crossover(found[name], found[base])
        way, unsettled = "faster" if met.ahead else "slower", "" if met.settled else " (not settled)"
        if met.length is None:
            at, estimate = f"{way} at every length{unsettled}", exponent(found[name])
            effects.append(
                Effect(f"crossover-{name}", "", "", EXPONENT, estimate, evidence=_keys(timed), detail=at, shown=False,
                       statement=f"{name} is {at}.")
            )  # fmt: skip
            continue
        low, high = (None if end is None else f"{end:,.0f}" for end in (met.length.low, met.length.high))
        between = f" ({low} to {high})" if low and high else ""
        options = timed[-1].cell.params["mechanisms"][name]
        statement = (
            f"A layer of {named(name, options)} is {way} than one of {named(base)} from about "
            f"{met.length.value:,.0f} tokens on, forward and backward."
        )
        effects.append(
            Effect(
                f"crossover-{name}", "", "", TOKENS, met.length, evidence=_keys(timed), statement=statement,
                detail=f"{way} from {met.length.value:,.0f}{between}{unsettled}",
                shown=met.settled and not same_function(name, base),
            )
        )  # fmt: skip
    return effects


def _keys(timed: Sequence[Record]) -> tuple[str, ...]:
    return tuple(record.key for record in timed)


__all__ = ["Scaling"]
