"""The verbs that work on the folders of runs; nothing is computed again."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deadweight.cli.app import app
from deadweight.cli.output import tell

if TYPE_CHECKING:
    from deadweight.lab.status import FolderStatus
    from deadweight.runs.compare import Comparison


@app.command
def report(folder: Path, *others: Path, out: Path | None = None, json: bool = False) -> int:
    """Rebuild findings and page of a run folder from its records alone; of several, write one page that compares them.

    Example: deadweight report audit/

    Args:
        folder: a folder written by `audit` or `run`.
        others: further folders, to be set side by side with the first.
        out: file of the page that compares; default: comparison.html.
        json: print the findings as JSON.
    """
    from deadweight.studies import retell

    if not others:
        return tell(retell(folder), json)
    from deadweight.runs.side_by_side import compare

    print(compare([folder, *others], out or Path("comparison.html")))
    return 0


@app.command
def status(folder: Path, *, repair: bool = False, json: bool = False) -> int:
    """Say how far a run is: cells done, running, failed and left, damaged files, records of an earlier plan.

    Example: deadweight status runs/mlp

    Args:
        folder: a folder written by `audit` or `run`; it may be read-only, and a run may be at work on it.
        repair: set damaged records aside and clear away what killed runs left; the next run does those cells again.
        json: print as JSON.
    """
    from deadweight.lab.status import look_at
    from deadweight.studies import open_run

    _, planned, store = open_run(folder)
    repaired = store.repair(planned.cells) if repair else []
    found = look_at(planned.cells, store)
    if json:
        print(json_text.dumps({**_status_json(found), "repaired": repaired}, ensure_ascii=False))
    else:
        for sentence in repaired:
            print(sentence)
        _print_status(found)
    return 0 if found.whole else 1


@app.command
def export(
    folder: Path,
    *,
    what: Literal["records", "findings"] = "records",
    format: Literal["csv", "parquet", "latex"] = "csv",
    to: Path | None = None,
    json: bool = False,
) -> int:
    """Write a run's records or findings as a table for other programs.

    Example: deadweight export runs/mlp --what findings --format latex --to table.tex

    Args:
        folder: a folder written by `audit` or `run`.
        what: records (a row for each cell) or findings (a row for each finding).
        format: csv, parquet or latex.
        to: the file to write; default: records or findings in the folder itself, with the format's ending.
        json: print path and number of rows as JSON.
    """
    from deadweight.runs.export import ENDINGS, findings_frame, records_frame, write_table
    from deadweight.studies import read_run

    records, findings = read_run(folder)
    frame = records_frame(records) if what == "records" else findings_frame(findings)
    path = to or folder / f"{what}{ENDINGS[format]}"
    write_table(frame, path, format)
    if json:
        print(json_text.dumps({"path": str(path), "rows": len(frame)}))
    else:
        print(f"{len(frame)} {what}: {path}")
    return 0


@app.command
def diff(first: Path, second: Path, *, json: bool = False) -> int:
    """Say what changed from one run to another: findings with the interval of the difference, and differing results.

    Example: deadweight diff runs/before runs/after

    Args:
        first: a folder written by `audit` or `run`.
        second: the folder to hold against it.
        json: print as JSON.
    """
    from deadweight.runs.compare import compare
    from deadweight.studies import read_run

    found = compare(read_run(first), read_run(second))
    if json:
        print(json_text.dumps(found.as_json(), ensure_ascii=False))
    else:
        _print_comparison(found)
    return 0


def _status_json(found: FolderStatus) -> dict[str, object]:
    return {
        "studies": found.status.counts(),
        "seconds_left": found.status.seconds_left(),
        "failures": [
            {"key": one.cell.key, "cell": one.cell.label, "error": one.error, "attempts": one.attempts}
            for one in found.failures
        ],
        "damaged": [{"key": key, "reason": reason} for key, reason in found.damaged],
        "orphans": list(found.orphans),
    }


def _print_status(found: FolderStatus) -> None:
    from deadweight.lab.status import STATES, format_duration
    from deadweight.secrets import printable

    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("study")
    for state in STATES:
        table.add_column(state, justify="right")
    for study, counts in found.status.counts().items():
        table.add_row(Text(printable(study)), *(str(counts[state]) for state in STATES))
    console.print(table)
    left = found.status.seconds_left()
    if left:
        console.print(f"about {format_duration(left)} of work left", highlight=False)
    for failure in found.failures:
        text = f"failed: {failure.cell.label}: {printable(next(iter(failure.error.splitlines()), ''))}"
        console.print(f"{text} (attempt {failure.attempts})", markup=False, highlight=False, soft_wrap=True)
    for key, reason in found.damaged:
        console.print(
            f"damaged: {key}: {printable(reason)}; the next run does the cell again", markup=False, soft_wrap=True
        )
    if found.orphans:
        console.print(f"{len(found.orphans)} records belong to no cell of the study as it is now; they are kept")


def _print_comparison(found: Comparison) -> None:
    from deadweight.secrets import printable

    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("finding", "first", "second", "difference", "95 % interval", "verdict"):
        table.add_column(name, overflow="fold")
    for change in found.changes:
        verdict = " → ".join(dict.fromkeys(str(one or "measured") for one in change.verdicts))
        row = (
            f"{change.study}/{change.id}", _number(change.first), _number(change.second),
            f"{_number(change.difference, '+')} {change.unit}" if change.difference is not None else "–",
            f"{_number(change.low, '+')} … {_number(change.high, '+')}" if change.low is not None else "–", verdict,
        )  # fmt: skip
        table.add_row(*(Text(printable(part)) for part in row), style="bold" if change.moved else "")
    console.print(table)
    for side, names in (("first", found.only_first), ("second", found.only_second)):
        for name in names:
            console.print(f"only in the {side}: {printable(name)}", markup=False, highlight=False)
    console.print(
        f"cells in both: {found.same} with the same result, {len(found.differing)} with another; "
        f"{found.cells_only_first} only in the first, {found.cells_only_second} only in the second",
        highlight=False,
    )
    for key, where in found.differing[:20]:
        console.print(f"  {key} differs first at {where}", markup=False, highlight=False, soft_wrap=True)


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4g}"
