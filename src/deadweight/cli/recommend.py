"""The verb that turns findings into what to do about them."""

from __future__ import annotations

import json as json_text
from pathlib import Path

from rich.console import Console
from rich.text import Text

from deadweight.cli.app import app

_HEADINGS = {"dead weight": "Can go", "undecided": "Not settled yet", "needed": "Keep", None: "Worth knowing"}
_COLOURS = {"dead weight": "green", "undecided": "yellow", "needed": "red", None: "cyan"}


@app.command
def recommend(*folders: Path, json: bool = False) -> int:
    """Say what to do about the findings of one run or several, with the commands that do it.

    Example: deadweight recommend audit/

    Args:
        folders: folders written by `audit` or `run`.
        json: print as JSON.
    """
    from deadweight.errors import InputError
    from deadweight.runs.recommend import recommend as advise

    if not folders:
        raise InputError("no folder", expected="one or more run folders", cure="deadweight recommend audit/")
    advice = [one for folder in folders for one in advise(folder)]
    if json:
        print(json_text.dumps([one.as_json() for one in advice], ensure_ascii=False))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for folder in dict.fromkeys(one.run for one in advice):
        if len(folders) > 1:
            console.print(Text(f"\n{folder}", style="bold underline"))
        mine = [one for one in advice if one.run == folder]
        for verdict in dict.fromkeys(one.verdict for one in mine):
            console.print(Text(f"\n{_HEADINGS[verdict]}", style=f"bold {_COLOURS[verdict]}"))
            for one in (one for one in mine if one.verdict == verdict):
                console.print(Text(f"- {one.claim}"))
                if verdict != "needed":
                    console.print(Text(f"  {one.do}", style="dim"))
                    if one.command:
                        console.print(Text(f"    {one.command}", style="bold"))
    if not advice:
        console.print("No finding asks for anything.")
    return 0
