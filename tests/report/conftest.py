"""A page's worth of content, as studies would hand it over."""

from __future__ import annotations

import pandas as pd
import pytest

from deadweight.report import Action, Figure, Section, Table, charts, write_page


def finding(id, verdict, *, study="mlp", estimate=0.003, interval=(-0.002, 0.008), **changes):
    return {
        "id": id,
        "study": study,
        "claim": f"Claim of {id} costs 0.3 points.",
        "estimate": estimate,
        "unit": "accuracy",
        "interval": list(interval),
        "level": 0.95,
        "n": 540,
        "verdict": verdict,
        "margin": None if verdict is None else 0.01,
        "evidence": ["k1", "k2"],
        "command": f"deadweight {study} --seed 0",
        **changes,
    }


CURVES = pd.DataFrame(
    [
        {"layer": layer, "value": 0.1 * layer, "low": 0.1 * layer - 0.05, "high": 0.1 * layer + 0.05, "measure": name}
        for name in ("raw similarity", "a measure with quite a long name", "third")
        for layer in range(1, 9)
    ]
)
FINAL = CURVES[CURVES["layer"] == 8]
EVERY_CHART = {
    "line": charts.line(CURVES, "layer", "value", color="measure", band=("low", "high"), reference=0.4),
    "line-log": charts.line(CURVES, "layer", "value", color="measure", x_log=True, y_log=True),
    "scatter": charts.scatter(FINAL, "value", "high", color="measure", label="measure"),
    "bars": charts.bars_with_intervals(FINAL, "measure", "value", low="low", high="high"),
    "bars-grouped": charts.bars_with_intervals(CURVES, "layer", "value", color="measure", low="low", high="high"),
    "dots": charts.dots_with_intervals(FINAL, "measure", "value", low="low", high="high", color="measure", log=True),
    "heatmap": charts.heatmap(CURVES, "layer", "measure", "value"),
}


@pytest.fixture
def content():
    figures = tuple(Figure(name, f"Figure {name}", "How to read it.", chart) for name, chart in EVERY_CHART.items())
    wide = pd.DataFrame([{f"a column of number {i}": 1234567.891 + i for i in range(14)}])
    return {
        "title": "What it carries",
        "subtitle": "Two studies on a small model.",
        "findings": [
            finding("mlp-undecided", "undecided", interval=(0.001, 0.02)),
            finding("ranking", None, study="attention", estimate=None, interval=(None, None)),
            finding("mlp-dead", "dead weight"),
            finding("mlp-needed", "needed", estimate=0.06, interval=(0.04, 0.08)),
            finding("attention-dead", "dead weight", study="attention"),
        ],
        "sections": [
            Section("mlp", "MLPs", "How much can go?", "Much.", figures, (Table("Wide", wide, "All of it."),)),
            Section("attention", "Attention", "What costs what?", "It depends."),
        ],
        "facts": {"Machine": "two cores", "A long path": "x" * 120},
        "actions": {
            "mlp-dead": Action("Let the MLPs go.", "deadweight compress file:model --out smaller"),
            "mlp-needed": Action("Keep it."),
        },
        "skipped": [("icl", "no language model")],
        "failed": [{"cell": "mlp/grouped seed 1", "error": "out of memory"}],
    }


@pytest.fixture
def page(tmp_path, content):
    def write(**changes):
        return write_page(tmp_path / "out" / "report.html", **{**content, **changes})

    return write
