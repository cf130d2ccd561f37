"""The options that every command that computes takes, meaning the same everywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Group, Parameter

from deadweight.cli.whole import Whole
from deadweight.errors import InputError
from deadweight.source import with_option

_OFTEN = Group("Common options", sort_key=9)
_BUDGET = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?$")


@Parameter(name="*", group=_OFTEN)
@dataclass(frozen=True)
class Common:
    """What every command that computes takes, and means the same everywhere.

    Args:
        out: folder of the run; the same command on the same folder goes on where it stopped.
        device: torch device, e.g. cpu, cuda:0, mps; default: the accelerator if there is one.
        dtype: float32 or bfloat16, of the models that are examined.
        seed: everything random follows from it.
        limit: use at most so many items of each data set.
        margin: the loss one is willing to accept: 0.01 is one point of accuracy, or one per cent of a loss.
        budget: start no further cell after this long, e.g. 20min, 90s, 2h.
        dry_run: print the cells, the minutes and the bytes they are likely to take, and do nothing.
        json: print machine-readable JSON on standard output.
        paths: where the parts of the model are that no adapter knows, e.g. blocks=encoder.layers,embedding=patchify,
            mlp=ff,up=w1,down=w2,attention=attn; the same as ?paths= after its source.
        quiet: no progress and no list of findings: only where the page is, and errors.
        verbose: what the libraries say as well, and the whole error of a cell that fails.
    """

    out: Path | None = None
    device: str | None = None
    dtype: str | None = None
    seed: Whole | None = None
    limit: Whole | None = None
    margin: float | None = None
    budget: str | None = None
    dry_run: bool = False
    json: bool = False
    paths: str | None = None
    quiet: bool = False
    verbose: bool = False

    def options(self) -> dict[str, Any]:
        """Those that are a study's options, where given."""
        given = {name: getattr(self, name) for name in ("device", "dtype", "seed", "limit", "margin")}
        return {name: value for name, value in given.items() if value is not None}

    def located(self, options: dict[str, Any]) -> dict[str, Any]:
        """`options`, with ``--paths`` added to the source of the model they name: vision, else language."""
        if self.paths is None:
            return options
        for name in ("vision", "language"):
            given = options.get(name)
            if given:
                texts = [given] if isinstance(given, str) else list(given)
                told = [with_option(text, "paths", self.paths) for text in texts]
                return {**options, name: told[0] if isinstance(given, str) else told}
        raise InputError(
            "--paths without a model of yours", expected="--vision or --language beside it", cure="name the model"
        )

    @property
    def seconds(self) -> float | None:
        return None if self.budget is None else duration(self.budget, "--budget")


def duration(text: str, option: str) -> float:
    """Seconds of a time as people write it; anything else raises :class:`InputError` that names the option."""
    found = _BUDGET.match(text.strip())
    if not found:
        raise InputError(f"{option} {text!r}", expected="a time such as 20min, 90s or 2h")
    return float(found[1]) * {"h": 3600, "m": 60, "min": 60}.get(found[2] or "s", 1)
