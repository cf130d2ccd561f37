"""Findings, printed for a person or for a machine."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from deadweight.lab import Findings


def tell(findings: Findings, as_json: bool) -> int:
    if as_json:
        print(json_text.dumps(findings.as_json(), ensure_ascii=False))
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
            rows.add_row(f"  [{colours[finding.verdict]}]{verdict}[/]", Text(finding.claim))
            if not console.is_terminal:  # a log keeps a finding on one line
                print(f"  {verdict:<11}  {finding.claim}")
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
