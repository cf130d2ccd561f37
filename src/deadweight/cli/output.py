"""Findings, printed for a person or for a machine."""

from __future__ import annotations

import json as json_text
import logging
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deadweight.secrets import hide, printable

if TYPE_CHECKING:
    from deadweight.cli.options import Common
    from deadweight.lab import Findings, Records


class _Discreet(logging.Formatter):
    """What libraries say, without keys and passwords."""

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))


def progress(common: Common) -> Console | None:
    """Where progress is shown: standard error, or nowhere when it is to be quiet. Verbose lets the libraries talk."""
    if common.verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(_Discreet("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    return Console(stderr=True, quiet=True) if common.quiet else None


def tell_failures(records: Records) -> None:
    """The whole error of every cell that lacks its record."""
    for failure in records.failed:
        error = "\n".join(map(printable, failure.error.split("\n")))
        print(f"{failure.cell.label}:\n{error}", file=sys.stderr)


def tell(findings: Findings, as_json: bool, *, quiet: bool = False) -> int:
    """Print the findings; the exit code of a run that has them."""
    if as_json:
        print(json_text.dumps(findings.as_json(), ensure_ascii=False))
    elif quiet:
        print(findings.page)
    else:
        _print_findings(findings)
    return 1 if findings.failed else 0


def _print_findings(findings: Findings) -> None:
    console = Console()
    colours = {"dead weight": "green", "needed": "red", "undecided": "yellow", None: "cyan"}
    for study in dict.fromkeys(finding.study for finding in findings):
        console.print(f"\n[bold]{study}[/]")
        rows = Table.grid(padding=(0, 2))
        for finding in (finding for finding in findings if finding.study == study):
            verdict = finding.verdict or "measured"
            claim = printable(finding.claim)
            rows.add_row(f"  [{colours[finding.verdict]}]{verdict}[/]", Text(claim))
            if not console.is_terminal:  # a log keeps a finding on one line
                print(f"  {verdict:<11}  {claim}")
        if console.is_terminal:
            console.print(rows)
    for name, reason in findings.skipped:
        console.print(f"\n[bold]{name}[/] skipped: ", end="")
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
    if findings.failed:
        console.print(f"\n[red]{findings.failed} cells lack their record[/]; the same command tries them again")
    if findings.orphans:
        console.print(f"\n{findings.orphans} records of an earlier plan are kept and not used: `deadweight status`")
    if findings.page is not None:
        console.print(f"\nThe page: {findings.page}", highlight=False, soft_wrap=True)
