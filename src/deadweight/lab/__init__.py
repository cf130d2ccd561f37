"""Cells, records, the store, the executor and the statistics: everything a study stands on."""

from deadweight.lab.bench import Observer, Workbench
from deadweight.lab.cell import Cell, Json
from deadweight.lab.executor import Engine, run_cells
from deadweight.lab.files import disk, write_atomically
from deadweight.lab.findings import Finding, Findings
from deadweight.lab.records import Failure, Outcome, Record, Records
from deadweight.lab.store import Store
from deadweight.statistics import Estimate, accuracy_loss, holm

__all__ = [
    "Cell",
    "Engine",
    "Estimate",
    "Failure",
    "Finding",
    "Findings",
    "Json",
    "Observer",
    "Outcome",
    "Record",
    "Records",
    "Store",
    "Workbench",
    "accuracy_loss",
    "disk",
    "holm",
    "run_cells",
    "write_atomically",
]
