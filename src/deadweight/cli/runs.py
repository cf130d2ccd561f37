"""The verbs that work on the folders of runs; nothing is computed again."""

from __future__ import annotations

from pathlib import Path

from deadweight.cli.app import app
from deadweight.cli.telling import tell


@app.command
def report(folder: Path, *, json: bool = False) -> int:
    """Rebuild findings and page of a run folder from its records alone.

    Example: deadweight report audit/

    Args:
        folder: a folder written by `audit` or `run`.
        json: print the findings as JSON.
    """
    from deadweight.studies import retell

    return tell(retell(folder), json)
