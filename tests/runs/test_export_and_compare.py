"""Tables for other programs, and two runs side by side."""

import io
import json
import math
import re

import pandas as pd
import pytest
import toy_study  # noqa: F401  # registers the study
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from deadweight.cli import main
from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Findings, Records
from deadweight.lab.records import Record
from deadweight.runs.compare import compare, difference_interval
from deadweight.runs.export import csv_text, latex_text, records_frame, write_table
from deadweight.studies import build_study
from deadweight.studies.frame.run import run


def _call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of which the second has a cell more, and one that fails in both."""
    folder = tmp_path_factory.mktemp("runs")
    for name, count in (("first", 2), ("second", 4)):
        run(build_study("toy", {"count": count, "whats": ["raise"]}), folder / name)
    return folder


_READ = {"csv": pd.read_csv, "parquet": pd.read_parquet}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_row_a_record_and_every_value_in_it(runs, tmp_path, capsys, form):
    path = tmp_path / "table"
    code, out, _ = _call(capsys, "export", runs / "second", "--format", form, "--to", path, "--json")
    assert code == 0
    assert json.loads(out) == {"path": str(path), "rows": 4}
    table = _READ[form](path)
    assert list(table["result.square"]) == [0, 1, 4, 9]
    assert list(table["param.number"]) == [0, 1, 2, 3]
    assert json.loads(table["result.before"][1]) == [0]
    assert table["measured.seconds"].notna().all()
    assert table["key"].str.fullmatch("[0-9a-f]{16}").all()


def test_findings_as_latex_stand_in_the_folder_by_default(runs, capsys):
    code, out, _ = _call(capsys, "export", runs / "first", "--what", "findings", "--format", "latex")
    assert (code, out) == (0, f"1 findings: {runs / 'first' / 'findings.tex'}\n")
    text = (runs / "first" / "findings.tex").read_text()
    assert text.startswith(r"\begin{tabular}")
    assert text.count(r"\\") == 2
    assert re.search(r"toy & toy-squares & Squaring", text)


def test_columns_of_mixed_values_become_text_in_parquet(tmp_path):
    cells = [Cell("toy", "x", {"n": n}) for n in range(3)]
    records = Records([Record(cell, {"v": v}, {}, {}) for cell, v in zip(cells, (1, "one", None), strict=True)])
    write_table(records_frame(records), tmp_path / "t.parquet", "parquet")
    assert [None if v is None or v != v else v for v in pd.read_parquet(tmp_path / "t.parquet")["result.v"]] == [
        "1", "one", None,
    ]  # fmt: skip


def test_nothing_is_a_table_too(tmp_path):
    for form in ("csv", "parquet", "latex"):
        write_table(records_frame(Records([])), tmp_path / form, form)
        assert (tmp_path / form).exists()
    with pytest.raises(InputError, match="csv, parquet, latex"):
        write_table(records_frame(Records([])), tmp_path / "x", "xlsx")


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(), st.floats(allow_nan=False)), max_size=5))
def test_a_csv_gives_back_what_went_in(rows):
    frame = pd.DataFrame(rows, columns=["text", "whole", "real"])
    back = pd.read_csv(io.StringIO(csv_text(frame)), keep_default_na=False, dtype={"text": str, "whole": str})
    assert list(back["real"]) == list(frame["real"])
    assert [int(value.removeprefix("'")) for value in back["whole"]] == list(frame["whole"])
    for shown, text in zip(back["text"], frame["text"], strict=True):
        plain = text.replace("\0", "�").replace("\r\n", "\n").replace("\r", "\n")
        assert shown in (plain, f"'{plain}")


def test_latex_says_missing_and_keeps_four_digits():
    text = latex_text(pd.DataFrame({"x": [1.23456789, None], "evidence": ["a", "b"]}))
    assert "1.235" in text
    assert "--" in text
    assert "evidence" not in text


@pytest.mark.parametrize(("a", "n", "b", "m"), [(56, 70, 48, 80), (9, 10, 3, 10), (10, 34, 30, 34)])
def test_the_interval_of_a_difference_of_rates_is_newcombes(a, n, b, m):
    """Newcombe's hybrid score interval is this construction on Wilson's; statsmodels has it on its own."""
    first, second = ((k / t, *proportion_confint(k, t, method="wilson")) for k, t in ((a, n), (b, m)))
    low, high = confint_proportions_2indep(b, m, a, n, method="newcomb", compare="diff")
    assert difference_interval(first, second) == pytest.approx((low, high), abs=1e-12)


@given(st.tuples(*[st.floats(0, 5)] * 2), st.floats(-9, 9), st.floats(-9, 9))
def test_of_symmetric_intervals_it_is_the_usual_one(halves, a, b):
    low, high = difference_interval((a, a - halves[0], a + halves[0]), (b, b - halves[1], b + halves[1]))
    assert (low, high) == pytest.approx((b - a - math.hypot(*halves), b - a + math.hypot(*halves)), abs=1e-9)


def _finding(name, value, low, high, verdict="needed"):
    return Finding(name, "mlp", "a claim", value, "points", low, high, 30, verdict=verdict, margin=0.01)


def test_what_moved_and_what_did_not():
    cells = [Cell("toy", "x", {"n": n}) for n in range(4)]

    def records(**results):
        return Records([Record(cells[int(n[1:])], result, {"seconds": 1}, {}) for n, result in results.items()])

    first = (
        records(c0={"v": 1}, c1={"v": {"deep": [1, 2]}}, c2={"v": 3}),
        Findings([_finding("still", 1, 0, 2), _finding("moved", 1, 0.9, 1.1), _finding("gone", 1, 0, 2)]),
    )
    second = (
        records(c0={"v": 1}, c1={"v": {"deep": [1, 2.0]}}, c3={"v": 3}),
        Findings(
            [_finding("still", 2, 1, 3), _finding("moved", 2, 1.9, 2.1, "dead weight"), _finding("new", 1, None, None)]
        ),
    )
    found = compare(first, second)
    moved = {change.id: (change.moved, change.difference, change.verdicts) for change in found.changes}
    assert moved == {"still": (False, 1, ("needed", "needed")), "moved": (True, 1, ("needed", "dead weight"))}
    assert (found.only_first, found.only_second) == (("mlp/gone",), ("mlp/new",))
    assert (found.same, found.cells_only_first, found.cells_only_second) == (1, 1, 1)
    assert found.differing == ((cells[1].key, "result.v.deep[1]"),), "2 and 2.0 are not the same bits"


def test_a_run_differs_in_nothing_from_itself(runs, capsys):
    code, out, _ = _call(capsys, "diff", runs / "first", runs / "first", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["same"], said["differing"], said["only_first"], said["only_second"]) == (2, [], [], [])
    assert [change["moved"] for change in said["changes"]] == [False]


def test_two_runs_side_by_side_in_words(runs, capsys):
    code, out, _ = _call(capsys, "diff", runs / "first", runs / "second")
    assert code == 0
    assert (
        "cells in both: 2 with the same result, 0 with another; 0 only in the first, 2 only in the second"
        in " ".join(out.split())
    )
    assert "toy/toy-squares" in out
    assert "+3" in out  # the mean of 0, 1, 4, 9 less that of 0, 1
