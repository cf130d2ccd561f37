"""The verbs that look around: what there is to choose from, and what this machine can measure."""

from __future__ import annotations

import json as json_text
from typing import Literal

from rich.console import Console

from deadweight.cli.app import app
from deadweight.source_options import options_text


@app.command(name="list", help_epilogue=options_text(), help_format="plaintext")
def list_(what: str = "studies", *, json: bool = False) -> int:
    """List what there is to choose from.

    Example: deadweight list mechanisms

    Args:
        what: models, data, tasks, mechanisms, probes or studies.
        json: print as JSON.
    """
    from deadweight.studies.catalogue import catalogue

    rows = catalogue(what)
    if json:
        print(json_text.dumps([{"name": name, "about": about} for name, about in rows], ensure_ascii=False))
        return 0
    width = max((len(name) for name, _ in rows), default=0)
    for name, about in rows:
        print(f"{name:<{width}}  {about}".rstrip())
    return 0


@app.command
def doctor(*, json: bool = False) -> int:
    """Say what this machine can measure, and what to do about what it can't.

    Example: deadweight doctor

    Args:
        json: print as JSON.
    """
    from deadweight.studies.doctor import examine

    checks = examine()
    if json:
        print(json_text.dumps([check.as_json() for check in checks], ensure_ascii=False))
        return 0
    console = Console()
    for check in checks:
        mark, colour = ("yes", "green") if check.good else ("no ", "yellow")
        console.print(f"[{colour}]{mark}[/]  [bold]{check.what}[/]: ", end="", highlight=False)
        console.print(check.found, markup=False, highlight=False)
        if check.cure:
            console.print(f"       {check.cure}", markup=False, style="dim", highlight=False)
    return 0


@app.command
def completion(shell: Literal["bash", "zsh", "fish", "powershell"]) -> int:
    """Print the script that completes commands and options in a shell.

    Example: deadweight completion bash

    Args:
        shell: the shell it is for; its documentation says where such scripts go.
    """
    print(app.generate_completion(shell=shell))
    return 0
