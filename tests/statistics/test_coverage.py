"""A fast, seeded part of `benchmarks/calibration.py`, and that its table says no where a promise is missed."""

import doctest
import importlib
import json
import pkgutil
import runpy
from pathlib import Path

import numpy as np
import pytest

import deadweight.statistics as st

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODULE = runpy.run_path(str(ROOT / "benchmarks" / "calibration.py"))
coverage, shapes = MODULE["coverage"], MODULE["SHAPES"]
DRAWS = {
    "rate": (lambda g: st.rate(g.random(24) < 0.1), 0.1),
    "rate of clusters": (
        lambda g: st.rate(np.repeat(g.random(30) < 0.3, 3), clusters=np.repeat(np.arange(30), 3).tolist()), 0.3,
    ),
    "mean, skewed": (lambda g: st.mean(shapes["lognormal 0.75"](g, (16,))), 1.0),
    "mean, normal": (lambda g: st.mean(shapes["normal"](g, (16,))), 1.0),
    "clusters": (lambda g: MODULE["clustered"](g, 8, 4, shapes["exponential"]), 1.0),
    "rise": (lambda g: MODULE["risen"](g, 16, shapes["exponential"]), 0.02),
    "three sets": (lambda g: st.two_way_mean(MODULE["crossed_losses"](g, 78, 3, 0.2)), 0.0),
    "five seeds": (lambda g: st.two_way_mean(MODULE["crossed_losses"](g, 359, 5, 0.01, right=0.96)), 0.0),
    "kappa": (lambda g: st.cohen_kappa(*MODULE["followed"](g, 78, 1, 0.3, 0.75, 0.0)), 0.3),
    "median": (lambda g: st.median(g.lognormal(size=7)), 1.0),
    "ratio": (lambda g: MODULE["busy_ratio"](g, 6), 2.0),
    "best of eight": (lambda g: MODULE["lowest"](g, (8, 3), symmetric=True), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_an_interval_holds_what_it_promises(name):
    draw, truth = DRAWS[name]
    row = coverage(name, "test", draw, truth, 400, 0)
    assert row.shown > 0.95
    assert row.holds, row


@pytest.mark.parametrize("n", [24, 195, 359])
@pytest.mark.parametrize("better", [0.0, 0.02])
def test_each_end_of_an_accuracy_loss_is_wrong_in_at_most_a_fortieth(n, better):
    assert max(MODULE["exact_errors"](n, 0.01 + better, better)) <= 0.025


@pytest.mark.parametrize("blocks", [12, 30])
def test_a_study_rarely_says_anything_false(blocks):
    rows = [
        MODULE["decisions"]("t", "a", lambda g: MODULE["accuracy_study"](g, blocks, 359, 0.02), 200, 0),
        MODULE["decisions"]("t", "b", lambda g: MODULE["language_study"](g, blocks, 16, shapes["exponential"]), 100, 0),
    ]
    assert all(row.holds for row in rows), rows


def test_an_interval_that_is_too_narrow_is_reported():
    def narrow(generator):
        values = generator.exponential(size=16)
        half = values.std() / 4
        return st.Estimate(values.mean(), values.mean() - half, values.mean() + half, 16)

    row = coverage("narrow", "test", narrow, 1.0, 400, 0)
    assert not row.holds
    assert row.below > row.above
    assert MODULE["table_line"](row).endswith("| NO |")


def test_the_command_writes_its_rows(tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert MODULE["main"](["--quick", "--only", "best", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert len(rows) == 4
    assert all(row["holds"] for row in rows)
    assert "0 miss their promise" in capsys.readouterr().out


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(st.__path__)])
def test_the_examples_in_the_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(f"deadweight.statistics.{name}")).failed == 0
