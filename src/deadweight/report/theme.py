"""One look for every chart and for the page: colours that read on white and on near-black alike."""

from __future__ import annotations

from typing import Any

# Middle luminance on purpose: at least 3 : 1 against both backgrounds (WCAG 1.4.11; a test computes it).
PALETTE = (
    "#2f7fd1",
    "#d2691e",
    "#17937a",
    "#c2569b",
    "#8167d6",
    "#9a8210",
    "#d1495b",
    "#5f8a9e",
    "#6a9a2d",
    "#a86f4c",
)
REFERENCE = "#7c8591"
BACKGROUNDS = {"light": "#ffffff", "dark": "#17191d"}
VERDICT_COLOURS: dict[str | None, str] = {
    "dead weight": "#17937a",
    "needed": "#d1495b",
    "undecided": "#9a8210",
    None: "#5f8a9e",
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def chart_config(*, text: str, quiet: str, grid: str) -> dict[str, Any]:
    """Vega-Lite's config for one colour scheme: `text` titles, `quiet` axis labels, `grid` lines."""
    axis = {
        "labelColor": quiet,
        "titleColor": text,
        "domainColor": grid,
        "tickColor": grid,
        "gridColor": grid,
        "gridOpacity": 0.7,
        "labelFontSize": 12,
        "titleFontSize": 12.5,
        "titleFontWeight": 500,
        "titlePadding": 10,
        "labelLimit": 180,
        "tickSize": 4,
    }
    legend = {"labelColor": quiet, "titleColor": text, "labelFontSize": 12.5, "titleFontSize": 12.5,
              "symbolStrokeWidth": 2, "orient": "top", "columns": 4, "labelLimit": 220, "offset": 12,
              "title": None}  # fmt: skip
    return {
        "background": "transparent",
        "font": FONT,
        "axis": axis,
        "axisX": {"titleAnchor": "end", "titleAlign": "right"},  # grows leftwards: never cut on a narrow screen
        "axisXQuantitative": {"tickCount": 8, "labelFlush": False},
        "legend": legend,
        "header": {"labelColor": quiet, "titleColor": text, "labelFontSize": 12.5},
        "title": {"color": text},
        "text": {"color": text},
        "rule": {"color": text},
        "view": {"stroke": None},
        "range": {"category": list(PALETTE)},
        "mark": {"color": PALETTE[0]},
    }


LIGHT = chart_config(text="#1d2127", quiet="#555d68", grid="#e3e6ea")
DARK = chart_config(text="#eceef1", quiet="#a4adb8", grid="#31363d")
