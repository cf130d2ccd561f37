"""Runs of the version before the frame, opened by this one: the same findings, but for what is listed with its reason.

Each file holds the study, plan, records and findings of one run (the default audit and the four packaged miniatures; of
the few-shot one as much as six minutes gave), as that version wrote them. They also show that folders of an earlier
version open.
"""

import gzip
import json
from pathlib import Path

import pytest

from deadweight.studies.frame.run import read_run

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
RUNS = ("audit", "mlp", "depth", "attention", "icl")

# What is no longer found, and why.
GONE = {
    "useful": "its bootstrap interval promised more than it held, and these records keep no item's answers to redo it",
    "crossover": "five rounds are too few to say on which side of the reference a mechanism is",
}
# Estimates that are another statistic now.
OTHERWISE = {
    "speed": "the median of paired ratios, no longer the mean of their logarithms",
    "scaling": "the median of the rounds' slopes, no longer the slope of the medians",
    "loss": "a rise relative to the mean loss of all seeds, no longer the mean of each seed's relative rise",
}
# Verdicts that the data never supported.
UNSETTLED = {
    ("audit", "icl-sentiment-demonstrations"): "two sets of demonstrations are a range, no interval",
    ("audit", "icl-topic-demonstrations"): "two sets of demonstrations are a range, no interval",
    ("audit", "icl-question-type-labels"): "two sets of demonstrations are a range, no interval",
    ("icl", "icl-question-type-labels"): "one set of demonstrations says nothing about other sets",
}


@pytest.fixture(scope="module", params=RUNS)
def opened(request, tmp_path_factory):
    """(name, findings then, findings now) of a run's folder, laid out as its version did."""
    run = json.loads(gzip.decompress((HERE / f"{request.param}.json.gz").read_bytes()))
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "study.yaml").write_text(run["study"])
    (folder / "plan.json").write_text(json.dumps(run["plan"]))
    for key, record in run["records"].items():
        (folder / "cells" / key).mkdir(parents=True)
        (folder / "cells" / key / "record.json").write_text(json.dumps(record, indent=1))
    records, findings = read_run(folder)
    assert len(records) == len(run["records"])
    return request.param, {finding["id"]: finding for finding in run["findings"]}, {f.id: f for f in findings}


def _reason(name, reasons):
    return any(word in name.split("-") for word in reasons)


def test_the_same_findings_stand(opened):
    _, before, now = opened
    assert [name for name in before if name not in now and not _reason(name, GONE)] == []
    assert [name for name in now if name not in before] == []


def test_estimates_are_the_same(opened):
    _, before, now = opened
    for name in before.keys() & now.keys():
        then, found = before[name]["estimate"], now[name].estimate
        if then is None:
            assert found is None or found != found, name
        elif _reason(name, OTHERWISE):
            assert found == pytest.approx(then, rel=0.08, abs=2e-3), name
        else:
            assert found == pytest.approx(then, abs=1e-9), name


def test_verdicts_are_the_same(opened):
    run, before, now = opened
    for name in before.keys() & now.keys():
        expected = "undecided" if (run, name) in UNSETTLED else before[name]["verdict"]
        assert now[name].verdict == expected, name


def test_no_interval_lost_its_estimate_and_every_range_is_called_one(opened):
    for name, finding in opened[2].items():
        if finding.low is not None and finding.high is not None:
            assert finding.low <= finding.estimate <= finding.high, name
        if finding.level == 0:
            assert finding.verdict in (None, "undecided"), name
            assert finding.label != "95 % interval", name
        assert finding.evidence, name
