"""Which verb works on which family: tiny random models of all of them, each verb held against a plain computation.

``python benchmarks/families.py`` takes some twenty minutes and writes docs/reference/families.md; names of families as
arguments run these alone and print. What is *wrong* in the table is a fault of deadweight's; what is refused says so
before any work.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from family_checks import CHECKS, Found, inputs_of, run
from family_zoo import Family, language_families, vision_families

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "families.md"
HEADINGS = {"causal_lm": "Causal language models", "vision": "Vision transformers"}
INTRODUCTION = """# Families of models

What each verb does on each family that transformers {version} has. Every cell is a real run on a tiny model with random
weights, held against a computation that knows nothing of deadweight: PyTorch's counter, plain forward passes, the
original with a block skipped or with units silenced. `benchmarks/families.py` writes this page.

*right*: the numbers agree. *refused*: an error with the reason, before work starts. *n/a*: there is nothing to hold it
against. A number in brackets leads to the reason, below.
"""
_SHORTER = (  # one reason for what differs in names alone
    (
        r"^no adapter knows the parts of a .*",
        "no adapter knows its parts: give their paths, `dw.anatomy(model, paths=…)`",
    ),
    (r"^block \d+ \([\w.]+\)(:| has) ", ""),
    (r"^blocks \d+ and \d+ cannot share an MLP: .*", "neighbours have MLPs of different kinds or widths"),
    (r"^\w+ does not run without block \d+: ", "it does not run without the block: "),
    (r"^block \d+ cannot be dropped: ", ""),
)


def look(family: Family) -> dict[str, Found] | str:
    """The cells of a family's row; a sentence where there is no model to try."""
    inputs = inputs_of(family.kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = family.build()
            with torch.no_grad():
                model(**inputs)
    except Exception as problem:  # of transformers, or of the sizes given here
        return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
    return {verb: run(check, model, inputs) for verb, check in CHECKS[family.kind].items()}


def page(rows: Sequence[tuple[Family, dict[str, Found] | str]]) -> str:
    """The whole page."""
    reasons: dict[str, int] = {}
    parts = [INTRODUCTION.format(version=transformers.__version__)]
    for kind, heading in HEADINGS.items():
        own = [(family, cells) for family, cells in rows if family.kind == kind]
        verbs = list(CHECKS[kind])
        parts.append(f"\n## {heading}\n\n| family | {' | '.join(f'`{verb}`' for verb in verbs)} |")
        parts.append(f"|---|{'---|' * len(verbs)}")
        for family, cells in own:
            if not isinstance(cells, str):
                parts.append(f"| {family.name} | {' | '.join(_cell(cells[verb], reasons) for verb in verbs)} |")
        words = Counter(cell.word for _, cells in own if not isinstance(cells, str) for cell in cells.values())
        parts.append(f"\n{', '.join(f'{count} {word}' for word, count in words.most_common())}.")
        missing = [f"{family.name} ({cells[:100]})" for family, cells in own if isinstance(cells, str)]
        if missing:
            parts.append(f"\nNot tried, because no tiny model of them runs: {_plain('; '.join(missing))}.")
    parts.append("\n## Reasons\n")
    parts += [f"{number}. {_plain(reason)}" for reason, number in reasons.items()]
    return "\n".join(parts) + "\n"


def _cell(found: Found, reasons: dict[str, int]) -> str:
    if not found.why:
        return found.word
    why = found.why
    for wordy, short in _SHORTER:
        why = re.sub(wordy, short, why)
    return f"{found.word} [{reasons.setdefault(why, len(reasons) + 1)}]"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "(").replace(">", ")")


def main(arguments: Sequence[str]) -> int:
    transformers.logging.set_verbosity_error()
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("names", nargs="*", help="families to look at; all of them, and the page, without")
    asked.add_argument("--rows", type=Path, help="a file that keeps finished rows: they are not done again")
    options = asked.parse_args(arguments)
    kept = _kept(options.rows)
    rows = []
    for family in (*language_families(), *vision_families()):
        if options.names and family.name not in options.names:
            continue
        name = f"{family.kind}: {family.name}"
        if name not in kept:
            kept[name] = look(family)
            _keep(options.rows, name, kept[name])
        rows.append((family, kept[name]))
        print(name, _said(kept[name]), flush=True)
    if not options.names:
        PAGE.write_text(page(rows))
    return int(any(cell.word == "wrong" for _, cells in rows if not isinstance(cells, str) for cell in cells.values()))


def _said(cells: dict[str, Found] | str) -> object:
    if isinstance(cells, str):
        return cells
    return {verb: " ".join(filter(None, (found.word, found.why))) for verb, found in cells.items()}


def _kept(file: Path | None) -> dict[str, dict[str, Found] | str]:
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {
        name: cells if isinstance(cells, str) else {verb: Found(*found) for verb, found in cells.items()}
        for name, cells in rows
    }


def _keep(file: Path | None, name: str, cells: dict[str, Found] | str) -> None:
    if file is not None:
        told = cells if isinstance(cells, str) else {verb: (found.word, found.why) for verb, found in cells.items()}
        with file.open("a") as kept:
            kept.write(json.dumps([name, told]) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
