"""Whether inverted demonstrations override what label words mean: against the control, and against chance (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deadweight.lab import Estimate
from deadweight.prompting.alignment import agreement, coherence
from deadweight.studies.icl_rates import Indicators, Sitting, difference, excess, overridden, rate

FOLLOWED, SHAKEN, SHUNNED, UNSHOWN = (
    "the model does take up the inverted meaning",
    "the model trusts its own meaning less, but follows the inverted one no more often than chance would",
    "the model shies away from the inverted meaning",
    "which chance alone may explain",
)


def followed(sittings: Sequence[Sitting], frame: tuple[str, int]) -> Estimate | None:
    """Prompt alignment with φ(y*) over all items, whatever the prior was."""

    def indicate(sitting: Sitting) -> Indicators:
        return agreement(sitting.answers[frame], sitting.phi[sitting.gold])

    return rate(sittings, indicate)


def reading(sittings: Sequence[Sitting], k: int, beyond: Estimate) -> str:
    """What the excess over the control means.

    With two labels every wrong answer follows φ, so that demonstrations that only unsettle the model raise the excess
    too: it counts as override only where φ(y*) is also given more often than one label of all would be by chance.
    """
    if beyond.high < 0:
        return SHUNNED
    if beyond.low <= 0:
        return UNSHOWN
    given = followed(sittings, ("inverted", k))
    return FOLLOWED if given and given.low > 1 / len(sittings[0].labels) else SHAKEN


def override_table(tasks: dict[str, list[Sitting]]) -> pd.DataFrame:
    """One row a task, at its largest k: what inverted demonstrations move, beside the control and chance."""
    rows = []
    for task, sittings in tasks.items():
        k = max((k for condition, k in sittings[0].answers if condition == "inverted"), default=0)
        inverted, control = ("inverted", k), ("random", k)
        moved = rate(sittings, overridden(inverted)) if k else None
        if moved is None or control not in sittings[0].answers:
            continue
        beyond, given = difference(sittings, excess(inverted, control)), followed(sittings, inverted)
        moved_anyway = rate(sittings, overridden(control))
        kappas = [coherence(s.answers[inverted], s.phi[s.gold], len(s.labels)) for s in sittings]
        rows.append(
            {
                "task": task, "k": k, "right priors": moved.n, "override rate": moved.value, "from": moved.low,
                "to": moved.high, "under random labels": moved_anyway.value if moved_anyway else np.nan,
                "φ(y*) given": given.value if given else np.nan, "chance": 1 / len(sittings[0].labels),
                "κ with φ(y*)": float(np.mean(kappas)), "excess": beyond.value, "excess from": beyond.low,
                "excess to": beyond.high, "reading": reading(sittings, k, beyond) if beyond.n else "",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
