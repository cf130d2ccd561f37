"""A figure as the page carries it: the chart's specification, its PDF made beforehand, where its numbers lie."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from deadweight.report.parts import Figure
from deadweight.report.theme import LIGHT

_EXPORT = "window.vegaEmbed = vegaEmbed;"
_SINGLE_VIEW = (alt.Chart, alt.LayerChart)
PAPER = 560  # pixels a chart is wide in a PDF: two columns of a paper, or one at half size


@dataclass(frozen=True)
class Drawing:
    """spec and pdf (base64) as the page holds them; `numbers` names the specification's data set to offer as CSV."""

    spec: Markup
    pdf: str
    numbers: str


def drawing(figure: Figure) -> Drawing:
    """The figure with everything the page needs to draw it and to hand it over."""
    chart = figure.chart
    fluid = isinstance(chart, _SINGLE_VIEW) and chart.to_dict(validate=False).get("width") is None
    if fluid:
        chart = chart.properties(width="container")
    with alt.data_transformers.enable("default", max_rows=None):
        spec = chart.to_dict()
    printed = {**spec, "width": PAPER} if fluid else spec
    pdf: bytes = vl_convert.vegalite_to_pdf(printed, vl_version=version(), config=_on_paper())
    return Drawing(htmlsafe_json_dumps(spec, allow_nan=False), base64.b64encode(pdf).decode(), _numbers(spec))


def version() -> str:
    """The version of Vega-Lite that altair writes, as vl-convert names it."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@cache
def vega_bundle() -> str:
    """The JavaScript of vega, vega-lite and vega-embed, of the version altair writes, safe inside a script element."""
    source = vl_convert.javascript_bundle(_EXPORT, vl_version=version())
    # Inside a script element only these two sequences can end or derail it; both occur in strings alone.
    return re.sub(r"</(?=script)", r"<\\/", source, flags=re.IGNORECASE).replace("<!--", "\\x3c!--")


def _on_paper() -> dict[str, Any]:
    """The light theme with a font that every machine has a stand-in for."""
    return {**LIGHT, "background": "#ffffff", "font": "Helvetica, Arial, sans-serif"}


def _numbers(spec: Mapping[str, Any]) -> str:
    """The name of the data set with the most rows: lines that mark a reference have sets of their own, of one row."""
    sets: Mapping[str, Any] = spec.get("datasets", {})
    return max(sets, key=lambda name: len(sets[name]), default="")


__all__ = ["PAPER", "Drawing", "drawing", "vega_bundle", "version"]
