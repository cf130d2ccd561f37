"""What values look like in a notebook: every number there, nothing of it code."""

from __future__ import annotations

import re

import pytest
import torch

import deadweight as dw
from deadweight.lab.records import Failure, Records
from deadweight.notebook import table_html

HOSTILE = "<script>alert(1)</script>"


def _model():
    return dw.load("timm:test_vit?pretrained=false")


def _profile():
    torch.manual_seed(0)
    return dw.profile(_model(), [(torch.randn(4, 3, 160, 160), torch.tensor([0, 1, 0, 1]))])


def _finding(**changes):
    return dw.Finding("mlp-x", "mlp", f"Claim {HOSTILE}.", 0.02, "accuracy", -0.01, 0.05, 7, margin=0.01, **changes)


def _records():
    record = dw.Record(dw.Cell("mlp", "train", {"variant": HOSTILE}), {}, {"seconds": 1.5}, {})
    return Records([record], [Failure(dw.Cell("mlp", "cut"), HOSTILE, 2)])


SHOWN = {
    "profile": (_profile, ["Depth profile", "raw_similarity"]),
    "findings": (
        lambda: dw.Findings([_finding()], skipped=[("icl", HOSTILE)]),
        ["1 findings", "0.02", "-0.01", "icl skipped"],
    ),
    "counts": (lambda: dw.count(_model(), torch.zeros(1, 3, 160, 160)), ["parameters", "macs linear"]),
    "records": (_records, ["1 records", "1.5", "failed: mlp cut"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_values_show_themselves_and_run_nothing(name):
    make, words = SHOWN[name]
    shown = make()._repr_html_()
    assert "<script" not in shown
    assert shown.count("<table>") == 1
    for word in words:
        assert word in shown


def test_a_profile_shows_a_row_a_layer():
    profile = _profile()
    assert profile._repr_html_().count("<tr>") == profile.rows + 1


def test_cells_are_written_for_people():
    cells = re.findall(
        r"<td[^>]*>(.*?)</td>", table_html("t", list("abcde"), [(1234567, 0.000123456, None, True, "a<b")])
    )
    assert cells == ["1,234,567", "0.0001235", "–", "yes", "a&lt;b"]
    assert "text-align:right" in table_html("t", ["a"], [(1,)])
