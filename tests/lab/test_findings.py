import json
import math
from importlib import resources

import jsonschema
import pytest

from deadweight.lab import Finding, Findings
from deadweight.statistics import Source


def _finding(low, high, *, margin=0.01, **changes):
    return Finding(
        "x", "mlp", "a claim", (low + high) / 2, "points", low, high, 30, margin=margin,
        evidence=("0123456789abcdef",), sources=(Source("items", 30, 0.01),), **changes,
    )  # fmt: skip


def test_the_file_is_what_its_schema_says(tmp_path):
    remedy = {"model": "file:a", "surgery": "drop_blocks", "arguments": {"indices": [1]}, "sentence": "Drop it."}
    found = [_finding(-math.inf, 0.005, p=0.001, remedy=remedy), _finding(0, 1, margin=None, level=0.0, label="range")]
    Findings(found).write(tmp_path / "f.json")
    written = json.loads((tmp_path / "f.json").read_text())
    schema = json.loads(resources.files("deadweight.lab").joinpath("schemas/findings.schema.json").read_text())
    jsonschema.validate(written, schema)
    assert written["findings"][0]["interval"] == [None, 0.005]
    written["findings"][0]["verdict"] = "dead wood"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, schema)
