"""The studies: grids of cells, and what follows from their records."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "STUDIES": "study",
    "Study": "study",
    "Plan": "running",
    "build_study": "running",
    "load_study": "running",
    "packaged_studies": "running",
    "plan": "running",
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
    "packaged_studies",
    "plan",
    "retell",
    "run",
    "run_icl",
]

if TYPE_CHECKING:
    from deadweight.studies.icl import run_icl
    from deadweight.studies.running import Plan, build_study, load_study, packaged_studies, plan, retell, run
    from deadweight.studies.study import STUDIES, Study


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"deadweight.studies.{_HOME[name]}"), name)
