"""From findings to what to do about them: the remedy an effect brought, or what would settle it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deadweight.report import Action
from deadweight.statistics import Estimate, Source, needed
from deadweight.studies.frame.remedy import Remedy

# The option that brings more of what limits an interval, where a study has one.
_OPTIONS = {
    "items": "limit",
    "images": "limit",
    "sets of demonstrations": "seeds",
    "seeds": "seeds",
    "rounds": "rounds",
    "sequences": "sequences",
}


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
    estimate = estimate_of(finding)
    more = needed(estimate, float(finding["margin"]), tests) if finding.get("margin") is not None else None
    if not more:
        limit = "data" if estimate.limited_by is None else estimate.limited_by.name
        return Action(
            f"Keep it until more {limit} settle it; the estimate lies so near the accepted loss, or the data say so "
            "little, that no number can be named."
        )
    have = {source.name: source.n for source in estimate.sources}
    wanted = " and ".join(f"{count:,} {name} instead of {have[name]:,}" for name, count in more.items())
    growth = {name: count / have[name] for name, count in more.items()}
    command, lacking = with_more(str(finding.get("command") or ""), growth, more)
    rest = f"; the run took all the {' and '.join(lacking)} there are, so bring more" if lacking else ""
    return Action(f"Keep it for now: about {wanted} would settle it if the estimate holds{rest}.", command)


def with_more(command: str, growth: Mapping[str, float], counts: Mapping[str, int]) -> tuple[str, list[str]]:
    """The command with more of what limits an interval, and what it cannot bring: data that were used up.

    growth: how many times as much of each source is needed; counts: how much that is. A ``--limit`` grows alike, where
    the run was held back by one.

    >>> with_more("deadweight icl --limit 20 --seeds 0 --seeds 1", {"items": 2.5, "sets of demonstrations": 1.5},
    ...           {"items": 50, "sets of demonstrations": 3})
    ('deadweight icl --limit 50 --seeds 0 --seeds 1 --seeds 2', [])
    >>> with_more("deadweight depth --vision file:vit", {"images": 2.0}, {"images": 718})
    ('deadweight depth --vision file:vit', ['images'])
    """
    words, lacking = shlex.split(command), []
    for name in growth:
        option = _OPTIONS.get(name)
        flag = f"--{option}"
        if option == "limit" and flag in words:
            place = words.index(flag) + 1
            words[place] = str(math.ceil(int(words[place]) * growth[name]))
        elif option in (None, "limit"):
            lacking.append(name)
        else:
            given = [at for at, word in enumerate(words) if word == flag]
            words = [word for at, word in enumerate(words) if at not in given and at - 1 not in given]
            values = range(counts[name]) if option == "seeds" else [counts[name]]
            words += [part for value in values for part in (flag, str(value))]
    return shlex.join(words), lacking


def estimate_of(finding: Mapping[str, Any]) -> Estimate:
    """The estimate that a finding of ``findings.json`` was written from."""
    low, high = finding.get("interval") or (None, None)
    sources = tuple(Source(**source) for source in finding.get("sources") or ())
    value = finding.get("estimate")
    return Estimate(
        float("nan") if value is None else value, low, high, int(finding.get("n") or 0), finding.get("p"),
        float(finding.get("level", 0.95)), str(finding.get("label") or ""), sources,
    )  # fmt: skip


__all__ = ["action", "actions", "estimate_of", "located", "with_more"]
