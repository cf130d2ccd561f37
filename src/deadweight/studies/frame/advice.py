"""From findings to what to do about them: the remedy an effect brought, or what would settle it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deadweight.report import Action
from deadweight.statistics import needed
from deadweight.studies.frame.remedy import Remedy

_MOST = 100  # a factor beyond which more data of the same kind is no advice
# The option that brings more of what limits an interval, where a study has one.
_MORE = {"seeds": "seeds", "sets of demonstrations": "seeds", "rounds": "rounds", "sequences": "sequences"}


def actions(folder: Path, findings: Sequence[Mapping[str, Any]]) -> dict[str, Action]:
    """What to do, by the finding's id; findings that ask for nothing are left out.

    A function of the run's folder and its ``findings.json`` alone; nothing is computed.
    """
    judged = [str(f["study"]) for f in findings if f.get("verdict") is not None]
    advised = {str(f["id"]): action(folder, f, max(1, judged.count(str(f["study"])))) for f in findings}
    return {name: found for name, found in advised.items() if found is not None}


def action(folder: Path, finding: Mapping[str, Any], tests: int) -> Action | None:
    """What to do about one finding of `tests` that were judged together."""
    verdict = finding.get("verdict")
    if verdict == "undecided":
        return _settle(finding, tests)
    if verdict == "needed":
        return Action("Keep it.")
    remedy = finding.get("remedy")
    if remedy is not None:
        found = located(Remedy.from_json(remedy), folder)
        return Action(found.sentence, found.command())
    return None if verdict is None else Action("It can be left out.", str(finding.get("command") or ""))


def located(remedy: Remedy, folder: Path) -> Remedy:
    """The remedy with the model that a cell of this run saved as a source that loads from here."""
    scheme, _, key = remedy.model.partition(":")
    return replace(remedy, model=f"file:{folder / 'cells' / key / 'model'}") if scheme == "cell" else remedy


def _settle(finding: Mapping[str, Any], tests: int) -> Action:
    """More of what limits the interval: items, sets of demonstrations, seeds, rounds."""
    limit = str(finding.get("limited_by") or "items")
    times = times_as_many(finding, tests)
    if times is None:
        return Action(
            f"Keep it until more {limit} settle it; the estimate lies so near the accepted loss, or the data say so "
            "little, that no number can be named."
        )
    option = _MORE.get(limit, "limit")
    sentence = f"Keep it for now: about {times:.2g} times as many {limit} would settle it if the estimate holds."
    words = shlex.split(str(finding.get("command") or ""))
    return Action(f"{sentence} Give them with `--{option}`." if words else sentence, shlex.join(words))


def times_as_many(finding: Mapping[str, Any], tests: int) -> float | None:
    """How many times as much of what limits it would settle an undecided finding; None where no number can be named."""
    low, high = finding.get("interval") or (None, None)
    estimate, margin = finding.get("estimate"), finding.get("margin")
    if low is None or high is None or estimate is None or margin is None or estimate == margin:
        return None
    times = needed((estimate, low, high), margin, tests)
    return None if times > _MOST else max(times, 1.1)


__all__ = ["action", "actions", "located", "times_as_many"]
