"""A new experiment is one class and one name in a study's list: everything else comes with the frame."""

from typing import ClassVar

import pytest

from deadweight.lab import Cell, Outcome, Store, run_cells
from deadweight.statistics import Estimate, accuracy_loss
from deadweight.studies.frame import Effect, Experiment, Remedy, Study
from deadweight.studies.frame.experiment import check_effects
from deadweight.studies.frame.plan import Plan
from deadweight.studies.frame.quantity import ACCURACY, Quantity
from deadweight.studies.frame.run import collect, write_results


class Umbrella(Experiment):
    """What leaving the umbrella at home costs, over days."""

    kind: ClassVar[str] = "umbrella"

    def cells(self, study, subject):
        return [Cell(study.kind, self.kind, {"days": study.limit or 200, "vision": None})]

    def run(self, study, cell, bench):
        days = int(cell.params["days"])
        return Outcome({"with": [1] * days, "without": [day % 4 != 0 for day in range(days)]})

    def effects(self, records, margin):
        return [
            Effect(
                "umbrella", "", "Leaving the umbrella at home", ACCURACY,
                accuracy_loss(record.result["with"], record.result["without"], margin),
                baseline=1.0, judged=True, evidence=(record.key,),
                remedy=Remedy("cell:" + record.key, "drop_blocks", {"indices": [0]}, "Leave it."),
            )
            for record in self.own(records)
        ]  # fmt: skip


class WeatherStudy(Study):
    """What one can leave at home."""

    kind: ClassVar[str] = "weather"
    EXPERIMENTS: ClassVar = (Umbrella(),)
    TITLE: ClassVar[str] = "Weather"
    QUESTION: ClassVar[str] = "What can stay at home?"


def test_one_class_and_one_name_make_cells_findings_page_and_advice(tmp_path):
    study = WeatherStudy()
    cells = study.cells()
    run_cells(cells, study.run, Store(tmp_path))
    records = write_results(study, Plan(tuple(cells)), Store(tmp_path))
    (finding,) = records.findings()
    assert finding.id == "weather-umbrella"
    assert finding.verdict == "needed"
    assert finding.claim == "Leaving the umbrella at home costs 25 points of accuracy (100.0 % → 75.0 %)."
    page = (tmp_path / "report.html").read_text()
    assert "What can stay at home?" in page
    assert "Leaving the umbrella at home costs 25 points" in page
    assert "Keep it." in page


def test_the_margin_reaches_the_estimate():
    study = WeatherStudy(margin=0.5)
    assert study.margin == 0.5
    assert study.command == "deadweight weather --margin 0.5"


def test_experiments_of_one_kind_are_refused():
    with pytest.raises(TypeError, match="several experiments of the kind 'umbrella'"):

        class Twice(Study):
            """Two alike."""

            kind: ClassVar[str] = "twice"
            EXPERIMENTS: ClassVar = (Umbrella(), Umbrella())


def test_effects_that_disagree_on_units_are_refused():
    estimate = Estimate(0.0, -1.0, 1.0, 10, 1.0)
    one = Effect("a", "", "Cutting", ACCURACY, estimate)
    other = Effect("b", "", "Cutting", Quantity("accuracy", "percent", "costs {}", "gains {}", "same", True), estimate)
    with pytest.raises(ValueError, match="'accuracy' and in 'percent'"):
        check_effects([one, other])
    with pytest.raises(ValueError, match="effects with one id: a"):
        check_effects([one, one])
    with pytest.raises(ValueError, match="has no unit"):
        Effect("c", "", "Cutting", Quantity("bare", ""), estimate)


def test_nothing_to_tell_is_no_section(tmp_path):
    study = WeatherStudy()
    assert study.sections(collect(study, Plan(()), Store(tmp_path))) == []
