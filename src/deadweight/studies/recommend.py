"""From findings to what to do about them: a sentence and, where there is one, the command that does it.

Functions of a run's folder alone (``findings.json``, ``study.yaml``, the records); nothing is computed.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deadweight.errors import InputError
from deadweight.report import Action

_ITEMS = {"mlp": "seeds", "depth": "images", "icl": "items"}
_SMALLER = "smaller"  # the folder that suggested commands save to
_MOST = 100  # a factor beyond which more data of the same kind is no advice


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


@dataclass(frozen=True)
class _Run:
    """What the commands need to know of a run."""

    folder: Path
    options: Mapping[str, Any]
    judged: Mapping[str, int]

    def record(self, key: str) -> Mapping[str, Any]:
        try:
            found = json.loads((self.folder / "cells" / key / "record.json").read_text("utf-8"))
            cell: Mapping[str, Any] = found["cell"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return cell

    def model(self, finding: Mapping[str, Any]) -> str | None:
        """The vision model a finding is about: the user's, or the one this run trained and kept."""
        if self.options.get("vision"):
            return str(self.options["vision"])
        for key in finding.get("evidence", ()):
            for kept in (key, *self.record(key).get("needs", ())):
                if (self.folder / "cells" / kept / "model" / "deadweight.json").is_file():
                    return f"file:{self.folder / 'cells' / kept / 'model'}"
        return None


def recommend(folder: str | Path) -> list[Advice]:
    """Advice for every finding of a run's folder that asks for something, what can go first.

    Raises
    ------
    InputError
        The folder holds no findings, or no options, that can be read.
    """
    path = Path(folder)
    findings = read_findings(path)
    ways = actions(path, findings)
    order = ["dead weight", "undecided", "needed", None]
    told = [
        Advice(str(path), f["id"], f["study"], f["claim"], f["verdict"], ways[f["id"]].sentence, ways[f["id"]].command)
        for f in findings
        if f["id"] in ways
    ]
    return sorted(told, key=lambda advice: order.index(advice.verdict))


def actions(folder: str | Path, findings: Sequence[Mapping[str, Any]]) -> dict[str, Action]:
    """What to do, by the finding's id; findings that ask for nothing are left out."""
    path = Path(folder)
    judged = [str(f["study"]) for f in findings if f.get("verdict") is not None]
    run = _Run(path, _options(path), {study: judged.count(study) for study in judged})
    found = {str(f["id"]): _action(f, run) for f in findings}
    return {name: action for name, action in found.items() if action is not None}


def _action(finding: Mapping[str, Any], run: _Run) -> Action | None:
    verdict, study = finding.get("verdict"), str(finding["study"])
    if verdict == "undecided":
        return _settle(finding, run)
    if verdict == "needed":
        return Action("Keep it.")
    if verdict is None:
        return _of_a_measurement(finding)
    return {"mlp": _shrink, "depth": _drop, "icl": _prompt}.get(study, _leave_out)(finding, run)


def _settle(finding: Mapping[str, Any], run: _Run) -> Action:
    """More of what the finding counts; a command where more of it is at hand."""
    wanted = more_data(finding, run.judged.get(str(finding["study"]), 1))
    items = _ITEMS.get(str(finding["study"]), "items")
    if wanted is None:
        near = "the estimate lies so near the accepted loss that more of them are unlikely to do so"
        return Action(f"Keep it until more {items} settle it; {near}.")
    said = f"Keep it for now: some {wanted:,} {items} instead of {finding['n']:,} would settle it if the estimate holds"
    words = _prompting(finding, run)
    if words:
        return Action(f"{said}.", shlex.join([*words, "--limit", str(wanted)]))
    bring = "; bring them with --images" if items == "images" else ""
    return Action(f"{said}{bring}.", str(finding.get("command") or ""))


def more_data(finding: Mapping[str, Any], judged: int) -> int | None:
    """How much data would settle an undecided finding, should its estimate stay where it is.

    The half width of an interval shrinks with the square root of n, and among `judged` findings of a study the
    first must clear the level of Bonferroni, 0.05 / judged (ours; an estimate, and called one). None where `_MOST`
    times the data would not do.
    """
    from scipy.stats import norm

    low, high = finding.get("interval") or (None, None)
    estimate, margin, n = finding.get("estimate"), finding.get("margin"), int(finding.get("n") or 0)
    if low is None or high is None or estimate is None or margin is None or n < 1 or estimate == margin:
        return None
    wider = float(norm.isf(0.025 / max(1, judged)) / norm.isf(0.025))
    factor = (wider * (high - low) / 2 / abs(margin - estimate)) ** 2
    return None if factor > _MOST else _round(math.ceil(round(n * max(factor, 1.1), 6)))


def _round(value: int) -> int:
    """To two significant digits: an estimate is not known better."""
    size: int = 10 ** max(0, len(str(value)) - 2)
    return -(-value // size) * size


def _shrink(finding: Mapping[str, Any], run: _Run) -> Action:
    removed = re.search(r"removes (\d+)\s?%", str(finding["claim"]))
    left = 1 - int(removed[1]) / 100 if removed else 0.67
    model, inputs = _calibrated(finding, run)
    command = ""
    if model:
        words = ["deadweight", "compress", model, *inputs, "--parameters", f"{left:.2f}", "--out", _SMALLER]
        command = shlex.join(words)
    if "cut" in str(finding["id"]):
        return Action("Cut the model and keep what it knew: refitted in closed form, no labels, no training.", command)
    sentence = (
        "Train the smaller shape from the start next time; to bring a model that is trained already to that size, "
        "compress it: no labels, no training."
    )
    return Action(sentence, command)


def _calibrated(finding: Mapping[str, Any], run: _Run) -> tuple[str | None, list[str]]:
    """The model a finding of the mlp study is about, and the option that says what it is refitted on."""
    if str(finding["id"]).startswith("mlp-cut-language"):
        language = run.options.get("language")
        return (str(language) if language else None), ["--text", str(run.options.get("text") or "embedded:stdlib")]
    images = str(run.options.get("images") or "")
    return run.model(finding), ["--images", images] if images else []


def _quoted(text: str) -> str:
    """A Python string in double quotes, which a shell's single quotes leave as they are."""
    return json.dumps(text, ensure_ascii=False)


def _drop(finding: Mapping[str, Any], run: _Run) -> Action:
    model, block = run.model(finding), re.search(r"-block-(\d+)$", str(finding["id"]))
    if not (model and block):
        return _leave_out(finding, run)
    code = (
        f"import deadweight as dw; model = dw.load({_quoted(model)}); "
        f"dw.save(dw.drop_blocks(model, [{int(block[1]) - 1}]), {_quoted(_SMALLER)})"
    )
    sentence = f"Remove the block; the smaller model is saved in `{_SMALLER}` and loads like any other."
    return Action(sentence, shlex.join(["python", "-c", code]))


def _prompt(finding: Mapping[str, Any], run: _Run) -> Action:
    words = _prompting(finding, run)
    fewer = [word for k in (1, 2, 4) for word in ("--k", str(k))]
    command = shlex.join([*words, *fewer]) if words else str(finding.get("command") or "")
    if str(finding["id"]).endswith("-labels"):
        return Action("Do not spend effort on the demonstrations' labels here; try fewer demonstrations.", command)
    return Action("Leave the demonstrations out of this prompt, or see whether fewer of them help.", command)


def _prompting(finding: Mapping[str, Any], run: _Run) -> list[str]:
    """The icl study of the finding's task and model, as the words of a command; none for other findings."""
    cell = next((run.record(key) for key in finding.get("evidence", ())), {})
    task, language = cell.get("params", {}).get("task"), run.options.get("language")
    if str(finding["study"]) != "icl" or not (task and language):
        return []
    return ["deadweight", "icl", "--language", str(language), "--tasks", str(task)]


def _leave_out(finding: Mapping[str, Any], run: _Run) -> Action:
    return Action("It can be left out.", str(finding.get("command") or ""))


def _of_a_measurement(finding: Mapping[str, Any]) -> Action | None:
    """Measurements ask for nothing, but for two: a mechanism that is faster, and energy that could not be read."""
    name = str(finding["id"])
    if name == "attention-energy" and finding.get("estimate") is None:
        return Action("See what would let this machine read its energy.", "deadweight doctor")
    if name == "attention-time-fastest":
        return Action("Before taking it, see in this study what it does to the loss, and train longer to be sure.")
    return None


def read_findings(folder: Path) -> list[Mapping[str, Any]]:
    """The objects of a run folder's ``findings.json``; what cannot be read raises :class:`InputError`."""
    try:
        found: list[Mapping[str, Any]] = json.loads((folder / "findings.json").read_text("utf-8"))["findings"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{str(folder)!r} holds no findings that can be read",
            expected="a folder written by `deadweight audit` or `deadweight run`",
            cure="give the folder that was named with --out",
        ) from problem
    return found


def _options(folder: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load((folder / "study.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["Advice", "actions", "more_data", "read_findings", "recommend"]
