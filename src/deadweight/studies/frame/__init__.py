"""The frame all studies stand on: options → cells → records → effects → verdicts → findings and page."""

from deadweight.studies.frame.effects import Effect, sentence
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.quantity import Quantity
from deadweight.studies.frame.remedy import Remedy, command_line
from deadweight.studies.frame.study import STUDIES, Study
from deadweight.studies.frame.verdicts import Settled, select, settle

__all__ = [
    "STUDIES",
    "Effect",
    "Experiment",
    "Quantity",
    "Remedy",
    "Settled",
    "Study",
    "command_line",
    "select",
    "sentence",
    "settle",
]
