import json
import math
from importlib import resources

import jsonschema
import pytest

from deadweight.lab import Estimate, Finding, Findings, settle


def _finding(low, high, p, *, study="mlp", margin=0.01, name="x"):
    estimate = Estimate((low + high) / 2, low, high, 30, p)
    return Finding.of(name, study, "a claim", estimate, "points", margin=margin, evidence=["0123456789abcdef"])


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (-0.002, 0.004, 0.001, "dead weight"),
        (0.02, 0.05, 0.001, "needed"),
        (0.005, 0.02, 0.5, "undecided"),
        (-0.002, 0.004, 0.2, "undecided"),
        (-math.inf, math.inf, 1.0, "undecided"),
    ],
    ids=["below the margin", "above it", "across it", "interval clear but p is not", "one seed"],
)
def test_the_verdict_is_read_off_interval_and_p(low, high, p, verdict):
    assert settle([_finding(low, high, p)])[0].verdict == verdict


def test_without_a_margin_there_is_no_verdict():
    assert settle([_finding(0.02, 0.05, 0.001, margin=None)])[0].verdict is None


def test_holm_works_within_a_study_and_not_across():
    same = settle([_finding(0.0, 0.005, 0.03, name=str(i)) for i in range(3)])
    assert {finding.verdict for finding in same} == {"undecided"}
    apart = settle([_finding(0.0, 0.005, 0.03, study=str(i)) for i in range(3)])
    assert {finding.verdict for finding in apart} == {"dead weight"}


def test_the_file_is_what_its_schema_says(tmp_path):
    Findings(settle([_finding(-math.inf, 0.005, 0.001), _finding(0, 1, 1, margin=None)])).write(tmp_path / "f.json")
    written = json.loads((tmp_path / "f.json").read_text())
    schema = json.loads(resources.files("deadweight.lab").joinpath("schemas/findings.schema.json").read_text())
    jsonschema.validate(written, schema)
    assert written["findings"][0]["interval"] == [None, 0.005]
    written["findings"][0]["verdict"] = "dead wood"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, schema)
