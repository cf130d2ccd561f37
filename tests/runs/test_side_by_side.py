"""Several runs on one page."""

from __future__ import annotations

import json

import pytest

from deadweight.errors import InputError
from deadweight.runs.side_by_side import compare


def found(id, verdict, estimate=0.02, unit="accuracy"):
    return {"id": id, "study": "mlp", "claim": f"Claim {id}.", "estimate": estimate, "unit": unit, "n": 5,
            "interval": [estimate - 0.01, estimate + 0.01], "level": 0.95, "verdict": verdict,
            "margin": None if verdict is None else 0.01, "evidence": [], "command": ""}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    def write(name, *findings):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "findings.json").write_text(json.dumps({"schema": 2, "findings": list(findings)}))
        return tmp_path / name

    return write


def test_verdicts_that_differ_are_told_first(folder, tmp_path):
    one = folder("one", found("mlp-a", "needed"), found("mlp-b", "needed"), found("mlp-speed", None, 1.2, "×"))
    two = folder("two", found("mlp-a", "needed"), found("mlp-b", "undecided"), found("mlp-speed", None, 1.3, "×"),
                 found("mlp-new", "needed"))  # fmt: skip
    html = compare([one, two], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 findings are common to all 2 runs; 1 of them got different verdicts: mlp-b." in html
    assert "1 stand in some runs only." in html
    table = html[html.index("Findings side by side") :].split("</table>")[0]
    assert table.index("mlp-b") < table.index("mlp-a")
    assert "2 points (1 to 3 points)" in table
    assert html.count('class="chart"') == 2  # one of losses, one of speeds
    assert "mlp-new" in html[html.index("In some runs only") :]


def test_folders_of_one_name_are_told_apart(folder, tmp_path):
    paths = [folder(f"{name}/audit", found("mlp-a", "needed")) for name in ("x", "y")]
    html = compare(paths, tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(str(path) in html for path in paths)


@pytest.mark.parametrize("which", [["one"], ["one", "one"], ["one", "missing"]], ids="-".join)
def test_what_cannot_be_compared_is_refused(folder, tmp_path, which):
    folder("one", found("mlp-a", "needed"))
    with pytest.raises(InputError):
        compare([tmp_path / name for name in which], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
