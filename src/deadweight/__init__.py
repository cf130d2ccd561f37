"""deadweight finds what a transformer carries but does not use: parameters, layers, demonstrations, joules.

Everything a user may import is named here and loaded when it is first used: ``import deadweight as dw``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_DOOR = {
    "anatomy": "Anatomy anatomy",
    "errors": "DeadweightError InputError MachineError SourceError SurgeryError CellFailed",
    "models": "LanguageModel transform",
    "loading": "load load_lm save",
    "data": "load_images load_text",
    "surgery": "drop_blocks early_exit group_mlps scale_positions shallow_mlps surgeries swap_attention",
    "attention": "MECHANISMS mechanism",
    "probes": "DepthProfile profile",
    "prompting": "TASKS Task load_task score_labels",
    "meters": "Counts ModelledEnergy NullEnergy Reading ReplayEnergy carbon count energy_devices idle_power measure"
    " measure_repeated",
    "training": "Recipe train",
    "compression": "Compression compress",
    "lab": "Cell Estimate Finding Findings Record Records Store",
    "studies.frame.run": "audit load_study run",
    "studies.icl.study": "run_icl",
}
_HOME = {name: package for package, names in _DOOR.items() for name in names.split()}

__all__ = [
    "MECHANISMS",
    "TASKS",
    "Anatomy",
    "Cell",
    "CellFailed",
    "Compression",
    "Counts",
    "DeadweightError",
    "DepthProfile",
    "Estimate",
    "Finding",
    "Findings",
    "InputError",
    "LanguageModel",
    "MachineError",
    "ModelledEnergy",
    "NullEnergy",
    "Reading",
    "Recipe",
    "Record",
    "Records",
    "ReplayEnergy",
    "SourceError",
    "Store",
    "SurgeryError",
    "Task",
    "__version__",
    "anatomy",
    "audit",
    "carbon",
    "compress",
    "count",
    "drop_blocks",
    "early_exit",
    "energy_devices",
    "group_mlps",
    "idle_power",
    "load",
    "load_images",
    "load_lm",
    "load_study",
    "load_task",
    "load_text",
    "measure",
    "measure_repeated",
    "mechanism",
    "profile",
    "run",
    "run_icl",
    "save",
    "scale_positions",
    "score_labels",
    "shallow_mlps",
    "surgeries",
    "swap_attention",
    "train",
    "transform",
]

if TYPE_CHECKING:
    from deadweight.anatomy import Anatomy, anatomy
    from deadweight.attention import MECHANISMS, mechanism
    from deadweight.compression import Compression, compress
    from deadweight.data import load_images, load_text
    from deadweight.errors import CellFailed, DeadweightError, InputError, MachineError, SourceError, SurgeryError
    from deadweight.lab import Cell, Estimate, Finding, Findings, Record, Records, Store
    from deadweight.loading import load, load_lm, save
    from deadweight.meters import (
        Counts,
        ModelledEnergy,
        NullEnergy,
        Reading,
        ReplayEnergy,
        carbon,
        count,
        energy_devices,
        idle_power,
        measure,
        measure_repeated,
    )
    from deadweight.models import LanguageModel, transform
    from deadweight.probes import DepthProfile, profile
    from deadweight.prompting import TASKS, Task, load_task, score_labels
    from deadweight.studies.frame.run import audit, load_study, run
    from deadweight.studies.icl.study import run_icl
    from deadweight.surgery import (
        drop_blocks,
        early_exit,
        group_mlps,
        scale_positions,
        shallow_mlps,
        surgeries,
        swap_attention,
    )
    from deadweight.training import Recipe, train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deadweight' has no attribute {name!r}; it offers: {', '.join(__all__)}")
    value = getattr(import_module(f"deadweight.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
