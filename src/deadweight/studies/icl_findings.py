"""From the records of the icl study to its findings."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.lab import Estimate, Finding, Records
from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.studies.icl_cells import STUDY
from deadweight.studies.icl_override import reading
from deadweight.studies.icl_rates import (
    Sitting,
    by_task,
    difference,
    excess,
    loss,
    overridden,
    rate,
)


def icl_findings(records: Records, margin: float, command: str) -> list[Finding]:
    """Of every task: what removing the demonstrations costs, what randomising their labels costs, what inverting does.

    All are told at the largest number of demonstrations. The first two are losses from removal and get verdicts, and
    so does the last step of a sweep of at least three numbers of demonstrations.
    """
    found: list[Finding] = []
    for task, sittings in by_task(records).items():
        k = largest(sittings)
        frames = sittings[0].answers
        evidence = [sitting.key for sitting in sittings]
        natural, random, inverted, prior = ("natural", k), ("random", k), ("inverted", k), (ZERO_SHOT, 0)

        def tell(name: str, claim: str, estimate: Estimate, judged: bool, task: str = task,
                 evidence: list[str] = evidence) -> None:  # fmt: skip
            if not estimate.n:  # no item has a valid answer on both sides
                return
            found.append(
                Finding.of(
                    f"icl-{_slug(task)}-{name}", STUDY, claim, estimate, "accuracy" if judged else "share",
                    margin=margin if judged else None, evidence=evidence, command=command,
                )
            )  # fmt: skip

        if natural in frames and prior in frames:
            gone = difference(sittings, loss(natural, prior), margin)
            tell("demonstrations", f"In {task}, leaving out all {k} demonstrations {_change(gone)}.", gone, True)
        if natural in frames and random in frames:
            mixed = difference(sittings, loss(natural, random), margin)
            claim = (
                f"In {task}, giving the {k} demonstrations random labels instead of the right ones {_change(mixed)}."
            )
            tell("labels", claim, mixed, True)
        if last := _last_step(sittings):
            less = difference(sittings, loss(natural, ("natural", last)), margin)
            claim = f"In {task}, {last} demonstrations instead of {k} {_change(less)}."
            tell("last-demonstrations", claim, less, True)
        if inverted in frames and prior in frames and (moved := rate(sittings, overridden(inverted))):
            tell("override", _override_claim(task, k, sittings, moved, random in frames), moved, False)
        if inverted in frames and random in frames:
            beyond = difference(sittings, excess(inverted, random))
            tell("excess-override", _excess_claim(task, k, sittings, beyond), beyond, False)
    return found


def _override_claim(task: str, k: int, sittings: Sequence[Sitting], moved: Estimate, controlled: bool) -> str:
    claim = (
        f"In {task}, {k} demonstrations with inverted labels move {moved.value:.0%} of the answers that were right "
        "without demonstrations to the inverted label"
    )
    control = rate(sittings, overridden(("random", k))) if controlled else None
    return f"{claim}; random labels move {control.value:.0%} there." if control else f"{claim}."


def _excess_claim(task: str, k: int, sittings: Sequence[Sitting], beyond: Estimate) -> str:
    sense = reading(sittings, k, beyond)
    claim = (
        f"In {task}, inverted labels on {k} demonstrations make the model give the inverted answer "
        f"{abs(100 * beyond.value):.1f} points {'more' if beyond.value >= 0 else 'less'} often than random labels do: "
        f"{sense}."
    )
    same = " With two labels this is accuracy(random) − accuracy(inverted)."
    return claim + (same if len(sittings[0].labels) == 2 else "")


def _change(estimate: Estimate) -> str:
    points = round(100 * estimate.value, 1)
    if points == 0:
        return "does not change accuracy"
    return f"{'costs' if points > 0 else 'gains'} {abs(points):g} points of accuracy"


def _last_step(sittings: Sequence[Sitting]) -> int | None:
    """The k before the largest, where the sweep has at least three: what lies between is asked about by itself."""
    shown = sorted(k for condition, k in sittings[0].answers if condition == "natural")
    return shown[-2] if len(shown) > 2 else None


def largest(sittings: Sequence[Sitting]) -> int:
    return max(k for _, k in sittings[0].answers)


def _slug(task: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in task).split()).lower()
