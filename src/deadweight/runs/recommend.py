"""From the findings of a run's folder to what to do about them, what can go first. Nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deadweight.errors import InputError
from deadweight.studies.frame.advice import actions

_ORDER = ["dead weight", "undecided", "needed", None]


@dataclass(frozen=True)
class Advice:
    """What to do about one finding of one run."""

    run: str
    id: str
    study: str
    claim: str
    verdict: str | None
    do: str
    command: str

    def as_json(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def recommend(folder: str | Path) -> list[Advice]:
    """Advice for every finding of a run's folder that asks for something, what can go first.

    Raises
    ------
    InputError
        The folder holds no findings that can be read.
    """
    path = Path(folder)
    findings = read_findings(path)
    ways = actions(path, findings)
    advice = [
        Advice(str(path), f["id"], f["study"], f["claim"], f["verdict"], ways[f["id"]].sentence, ways[f["id"]].command)
        for f in findings
        if f["id"] in ways
    ]
    return sorted(advice, key=lambda one: _ORDER.index(one.verdict))


def read_findings(folder: Path) -> list[Mapping[str, Any]]:
    """The objects of a run folder's ``findings.json``; what cannot be read raises :class:`InputError`.

    Findings of an earlier version know no remedy and are judged by other rules: they are told to be rebuilt.
    """
    try:
        content = json.loads((folder / "findings.json").read_text("utf-8"))
        found: list[Mapping[str, Any]] = content["findings"]
        schema = int(content["schema"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{str(folder)!r} holds no findings that can be read",
            expected="a folder written by `deadweight audit` or `deadweight run`",
            cure="give the folder that was named with --out",
        ) from problem
    if schema < 2:
        raise InputError(
            f"the findings in {str(folder)!r} are of an earlier version",
            expected="findings with their remedies (schema 2)",
            cure=f"`deadweight report {folder}` rebuilds them from the records; nothing is computed again",
        )
    return found


__all__ = ["Advice", "read_findings", "recommend"]
