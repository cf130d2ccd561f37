"""The studies: grids of cells, and what follows from their records."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "STUDIES": "study",
    "Study": "study",
    "Plan": "reading",
    "build_study": "running",
    "load_study": "running",
    "packaged_studies": "running",
    "open_run": "running",
    "plan": "running",
    "read_run": "running",
    "retell": "running",
    "run": "running",
    "run_icl": "icl",
}

__all__ = [
    "STUDIES",
    "Plan",
    "Study",
    "build_study",
    "load_study",
    "open_run",
    "packaged_studies",
    "plan",
    "read_run",
    "retell",
    "run",
    "run_icl",
]

if TYPE_CHECKING:
    from deadweight.studies.icl import run_icl
    from deadweight.studies.reading import Plan
    from deadweight.studies.running import (
        build_study,
        load_study,
        open_run,
        packaged_studies,
        plan,
        read_run,
        retell,
        run,
    )
    from deadweight.studies.study import STUDIES, Study


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"deadweight.studies.{_HOME[name]}"), name)
