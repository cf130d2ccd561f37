"""The studies: grids of cells, and what follows from their records. Each is a package here, all on one frame."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deadweight.studies.frame.study import STUDIES

_HOME = {
    "Study": "frame.study",
    "Experiment": "frame.experiment",
    "Effect": "frame.effects",
    "Plan": "frame.plan",
    "build_study": "frame.run",
    "load_study": "frame.run",
    "packaged_studies": "frame.run",
    "open_run": "frame.run",
    "plan": "frame.run",
    "read_run": "frame.run",
    "retell": "frame.run",
    "run": "frame.run",
    "run_icl": "icl.study",
}
_KINDS = {
    "mlp": "mlp.study:MlpStudy",
    "depth": "depth.study:DepthStudy",
    "icl": "icl.study:IclStudy",
    "attention": "attention.study:AttentionStudy",
    "audit": "audit:AuditStudy",
}

__all__ = [
    "STUDIES",
    "Effect",
    "Experiment",
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
    from deadweight.studies.frame.effects import Effect
    from deadweight.studies.frame.experiment import Experiment
    from deadweight.studies.frame.plan import Plan
    from deadweight.studies.frame.run import (
        build_study,
        load_study,
        open_run,
        packaged_studies,
        plan,
        read_run,
        retell,
        run,
    )
    from deadweight.studies.frame.study import Study
    from deadweight.studies.icl.study import run_icl

for _kind, _place in _KINDS.items():
    STUDIES.add(_kind, f"{__name__}.{_place}")  # loaded when it is asked for


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"deadweight.studies.{_HOME[name]}"), name)
    globals()[name] = found
    return found
