"""Cells, records, the store, the executor and the statistics: everything a study stands on."""

from deadweight.lab.cell import Cell, Json
from deadweight.lab.executor import Observer, Workbench, run_cells
from deadweight.lab.findings import Finding, Findings, settle
from deadweight.lab.records import Failure, Outcome, Record, Records
from deadweight.lab.statistics import Estimate, accuracy_loss, bootstrap_mean, holm, paired_t, wilson
from deadweight.lab.store import Store, disk, write_atomically

__all__ = [
    "Cell",
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
    "bootstrap_mean",
    "disk",
    "holm",
    "paired_t",
    "run_cells",
    "settle",
    "wilson",
    "write_atomically",
]
