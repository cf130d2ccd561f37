"""The verbs that work on the folders of runs; nothing is computed again."""

from __future__ import annotations

from pathlib import Path

from deadweight.cli.app import app
from deadweight.cli.telling import tell


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
    from deadweight.studies.comparison import compare

    print(compare([folder, *others], out or Path("comparison.html")))
    return 0
