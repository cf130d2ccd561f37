"""Estimates with intervals that cover, or with none.

Every interval here is simulated in `benchmarks/calibration.py` at the sizes the studies use; how each is computed
stands in docs/explanation/method.md. Losses are *before minus after*: positive means something was lost.
"""

from deadweight.statistics.crossed import two_way_mean, two_way_rate
from deadweight.statistics.estimate import LEVEL, Estimate, Numbers, Source
from deadweight.statistics.kappa import cohen_kappa
from deadweight.statistics.means import mean, rise
from deadweight.statistics.multiplicity import Verdict, chosen, holm, needed, simultaneous, verdict, verdicts
from deadweight.statistics.proportions import accuracy_loss, rate
from deadweight.statistics.scaling import Budget, Crossover, after_budget, crossover, exponent, front
from deadweight.statistics.sequence import UsefulDepth, fixed_sequence, useful_depth
from deadweight.statistics.timing import least_rounds, median, ratio

__all__ = [
    "LEVEL",
    "Budget",
    "Crossover",
    "Estimate",
    "Numbers",
    "Source",
    "UsefulDepth",
    "Verdict",
    "accuracy_loss",
    "after_budget",
    "chosen",
    "cohen_kappa",
    "crossover",
    "exponent",
    "fixed_sequence",
    "front",
    "holm",
    "least_rounds",
    "mean",
    "median",
    "needed",
    "rate",
    "ratio",
    "rise",
    "simultaneous",
    "two_way_mean",
    "two_way_rate",
    "useful_depth",
    "verdict",
    "verdicts",
]
