"""From effects to findings: verdicts over all judged effects of a study, then the choice of what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deadweight.lab.findings import Finding
from deadweight.statistics import Estimate, holm, verdict
from deadweight.studies.frame.effects import Effect, tell_apart

MOST = 8  # effects of one series that are shown: the least needed


@dataclass(frozen=True)
class Settled:
    """An effect and the finding it became."""

    effect: Effect
    finding: Finding


def settle(
    effects: Sequence[Effect], *, study: str = "study", margin: float = 0.01, command: str = ""
) -> list[Finding]:
    """Every effect as a finding, in the order given; the judged ones with their verdicts.

    Holm's correction runs once, over all judged effects, shown or not: choosing what is shown comes after, and so
    cannot make a chance find look sure. *dead weight*: the whole interval of the loss lies below the margin and the
    corrected p is at most 0.05; *needed*: wholly above it, likewise; else *undecided*. An estimate without an interval
    that covers (a range of few repetitions) settles nothing.

    Parameters
    ----------
    effects:
        All of one study; estimates of judged ones were tested against `margin`.
    """
    judged = [effect for effect in effects if effect.judged]
    corrected = dict(zip(map(id, judged), holm([effect.estimate.p for effect in judged]), strict=True))
    return [
        _finding(effect, name, claim, corrected.get(id(effect)), study, margin, command)
        for effect, (name, claim) in zip(effects, tell_apart(effects), strict=True)
    ]


def select(settled: Sequence[Settled], most: int = MOST) -> list[Finding]:
    """The findings that are shown: of a long series the `most` whose loss is surely smallest, in their order."""
    shown = [pair for pair in settled if pair.effect.shown]
    series: dict[tuple[str, str], list[Settled]] = {}
    for pair in shown:
        if pair.effect.series:
            series.setdefault((pair.effect.subject, pair.effect.series), []).append(pair)
    left_out = {
        id(pair)
        for pairs in series.values()
        for pair in sorted(pairs, key=lambda pair: _upper(pair.effect.estimate))[most:]
    }
    return [pair.finding for pair in shown if id(pair) not in left_out]


def _upper(estimate: Estimate) -> float:
    return float("inf") if estimate.high is None else estimate.high


def _finding(
    effect: Effect, name: str, claim: str, p: float | None, study: str, margin: float, command: str
) -> Finding:
    estimate = effect.estimate
    return Finding(
        id=f"{study}-{name}",
        study=study,
        claim=claim,
        estimate=estimate.value,
        unit=effect.quantity.unit,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        verdict=verdict(estimate, margin, p) if p is not None else None,
        margin=margin if effect.judged else None,
        evidence=effect.evidence,
        command=command,
        level=estimate.level,
        p=estimate.p if p is None else p,
        label=estimate.label,
        sources=estimate.sources,
        remedy=None if effect.remedy is None else effect.remedy.as_json(),
    )


__all__ = ["MOST", "Settled", "select", "settle"]
