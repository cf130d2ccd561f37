"""Several runs on one page: the findings they share, side by side, those with another verdict first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deadweight.errors import InputError
from deadweight.report import Figure, Section, Table, charts, write_page
from deadweight.report.cards import has_interval
from deadweight.report.wording import in_unit, interval, quantity, verdict_name
from deadweight.runs.recommend import read_findings

_Found = dict[str, Mapping[str, Any]]


def compare(folders: Sequence[str | Path], page: str | Path) -> Path:
    """Write one page that sets the findings of several run folders side by side; returns its path.

    Raises
    ------
    InputError
        Fewer than two folders, one named twice, or one without findings that can be read.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"{len(paths)} folder(s): {', '.join(map(str, paths))}",
            expected="two or more different run folders",
            cure="name each folder once",
        )
    runs = {
        name: {str(f["id"]): f for f in read_findings(path)} for name, path in zip(_names(paths), paths, strict=True)
    }
    sections = [_section(study, runs) for study in _studies(runs)]
    return write_page(
        page,
        title="Runs side by side",
        subtitle="; ".join(runs),
        findings=[],
        sections=sections,
        facts={name: str(path) for name, path in zip(runs, paths, strict=True)},
        comparison=_summary(runs),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names; where two are the same, their paths."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _studies(runs: Mapping[str, _Found]) -> list[str]:
    return list(dict.fromkeys(str(f["study"]) for found in runs.values() for f in found.values()))


def _shared(runs: Mapping[str, _Found], study: str | None = None) -> list[str]:
    """Ids that every run has, those with different verdicts first."""
    first = next(iter(runs.values()))
    ids = [
        id
        for id, finding in first.items()
        if all(id in found for found in runs.values()) and study in (None, finding["study"])
    ]
    return sorted(ids, key=lambda id: len({found[id]["verdict"] for found in runs.values()}) == 1)


def _summary(runs: Mapping[str, _Found]) -> str:
    shared = _shared(runs)
    other = [id for id in shared if len({found[id]["verdict"] for found in runs.values()}) > 1]
    alone = len({id for found in runs.values() for id in found}) - len(shared)
    said = f"{len(shared)} findings are common to all {len(runs)} runs; {len(other)} of them got different verdicts"
    said += f": {', '.join(other)}." if other else "."
    return f"{said} {alone} stand in some runs only." if alone else said


def _section(study: str, runs: Mapping[str, _Found]) -> Section:
    ids = _shared(runs, study)
    extra = sorted({id for found in runs.values() for id, f in found.items() if f["study"] == study} - set(ids))
    first = next(iter(runs.values()))
    lead = (
        "Each finding as each run has it; verdicts that differ come first."
        if ids
        else "No finding of this study is common to all runs."
    )
    tables = (
        [Table("Findings side by side", _table(runs, ids), "Loss or measurement, with its interval.")] if ids else []
    )
    if extra:
        tables.append(Table("In some runs only", _table(runs, extra)))
    figures = _figures(study, runs, [id for id in ids if all(has_interval(found[id]) for found in runs.values())])
    question = str(first[ids[0]]["claim"]) if len(ids) == 1 else f"Do the runs agree about {study}?"
    return Section(study, study, question, lead, tuple(figures), tuple(tables))


def _figures(study: str, runs: Mapping[str, _Found], ids: Sequence[str]) -> list[Figure]:
    """One chart a unit, measurements and judged losses apart."""
    first, figures = next(iter(runs.values())), []
    kinds = dict.fromkeys((str(first[id].get("unit") or ""), first[id]["margin"] is not None) for id in ids)
    for number, (unit, judged) in enumerate(kinds, start=1):
        frame = pd.DataFrame(
            {
                "finding": id.removeprefix(f"{study}-").replace("-", " "),
                "run": name,
                "value": in_unit(found[id]["estimate"], unit)[0],
                "low": in_unit(found[id]["interval"][0], unit)[0],
                "high": in_unit(found[id]["interval"][1], unit)[0],
            }
            for id in ids
            if (str(first[id].get("unit") or ""), first[id]["margin"] is not None) == (unit, judged)
            for name, found in runs.items()
        )
        word = in_unit(0.0, unit)[1] or "value"
        chart = charts.dots_with_intervals(
            frame, "finding", "value", low="low", high="high", color="run",
            title=f"loss if removed, {word}" if judged else word,
            reference=in_unit(first[ids[0]]["margin"], unit)[0] if judged and first[ids[0]]["margin"] else None,
        )  # fmt: skip
        title = "What is lost without each part" if judged else f"Measured, in {word}"
        caption = "Dots are estimates, lines their intervals; one colour a run."
        figures.append(Figure(f"{study}-runs-{number}", title, caption, chart))
    return figures


def _table(runs: Mapping[str, _Found], ids: Sequence[str]) -> pd.DataFrame:
    def told(finding: Mapping[str, Any] | None) -> str:
        if finding is None:
            return "–"
        unit = str(finding.get("unit") or "")
        said = quantity(finding.get("estimate"), unit)
        if has_interval(finding):
            said += f" ({interval(finding['interval'][0], finding['interval'][1], unit)})"
        return said

    rows = []
    for id in ids:
        row: dict[str, str] = {"finding": id}
        for name, found in runs.items():
            row[f"{name}: verdict"] = verdict_name(found[id]["verdict"]) if id in found else "–"
            row[name] = told(found.get(id))
        verdicts = {found[id]["verdict"] for found in runs.values() if id in found}
        rows.append({**row, "verdicts": "the same" if len(verdicts) == 1 else "differ"})
    return pd.DataFrame(rows)


__all__ = ["compare"]
