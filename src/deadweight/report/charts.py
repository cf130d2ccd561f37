"""Small altair charts that studies share. All take a tidy frame and column names; none sets a theme.

The page sets width, fonts and the colours of text (:mod:`deadweight.report.theme`), so that charts look alike,
fill their column and follow dark mode. Series take their colours in the order in which they first appear.
Cells that are NaN are left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from pandas import DataFrame

from deadweight.errors import InputError
from deadweight.report.cards import has_interval
from deadweight.report.theme import REFERENCE, VERDICT_COLOURS
from deadweight.report.wording import in_unit, verdict_name

ROW = 30  # pixels a category takes in a chart of rows
BAR = 14  # pixels a bar is thick
FEW = 8  # values of a log axis that can all be written under it
LABEL = 22  # characters after which the name of a row is broken


def line(
    frame: DataFrame,
    x: str,
    y: str,
    *,
    color: str | None = None,
    band: tuple[str, str] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    x_log: bool = False,
    y_log: bool = False,
    y_zero: bool = False,
    y_domain: tuple[float, float] | None = None,
    y_format: str | None = None,
    reference: float | None = None,
    points: bool = True,
    height: int = 280,
) -> alt.LayerChart:
    """Curves of `y` over `x`, one a value of `color`, with a shaded interval between the columns of `band`.

    `reference` draws a dashed horizontal line; `y_format` is a d3 format, e.g. ``"~%"`` for shares of one.
    """
    _require(frame, x, y, color, *(band or ()))
    series = None if color is None else _picked(color)
    x_axis = _x(frame, x, x_title, log=x_log)
    scale = _scale(log=y_log, zero=y_zero, domain=y_domain)
    y_axis = alt.Y(_field(y), type="quantitative", title=y_title or _words(y), scale=scale,
                   axis=_axis(frame, y, y_format, log=y_log))  # fmt: skip
    colour = {} if color is None else {"color": _colour(frame, color)}
    layers: list[alt.Chart] = []
    if band is not None:
        low = alt.Y(_field(band[0]), type="quantitative", title=y_title or _words(y), scale=scale)
        layers.append(
            alt.Chart(frame)
            .mark_area(line=False)
            .encode(x_axis, low, alt.Y2(_field(band[1])), opacity=_shown(series, 0.18, 0.04), **colour)
        )
    mark = alt.Chart(frame).mark_line(strokeWidth=2.25, point=points and {"size": 42, "filled": True})
    curve = mark.encode(
        x_axis, y_axis, tooltip=_tooltip(frame, x, y, color, *(band or ())), opacity=_shown(series, 1, 0.15), **colour
    )
    layers.append(curve if series is None else curve.add_params(series))
    if reference is not None:
        layers.append(_rule(reference, "y"))
    return _layered(layers).properties(height=height)


def scatter(
    frame: DataFrame,
    x: str,
    y: str,
    *,
    color: str | None = None,
    label: str | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    x_log: bool = False,
    y_log: bool = False,
    height: int = 300,
) -> alt.LayerChart:
    """Points of `y` against `x`; `label` names a column written beside each point (cost against quality)."""
    _require(frame, x, y, color, label)
    y_axis = alt.Y(_field(y), type="quantitative", title=y_title or _words(y),
                   scale=_scale(log=y_log, padding=24), axis=_axis(frame, y, None, log=y_log))  # fmt: skip
    base = alt.Chart(frame).encode(_x(frame, x, x_title, log=x_log, padding=36), y_axis)
    named = label is not None and label == color  # the names stand beside the points already
    colour = {} if color is None else {"color": _colour(frame, color, legend=not named)}
    layers = [base.mark_circle(size=90, opacity=1).encode(tooltip=_tooltip(frame, x, y, color, label), **colour)]
    if label is not None:
        layers.append(base.mark_text(align="center", dy=-12, fontSize=12).encode(text=alt.Text(_field(label))))
    return _layered(layers).properties(height=height)


def bars_with_intervals(
    frame: DataFrame,
    category: str,
    value: str,
    *,
    low: str | None = None,
    high: str | None = None,
    color: str | None = None,
    title: str | None = None,
    reference: float | None = None,
    value_format: str | None = None,
) -> alt.LayerChart:
    """Horizontal bars, a row for each `category`, from zero to `value`, with an interval from `low` to `high`.

    With `color`, each row holds one bar a value of it, side by side. `title` names the axis of values.
    """
    bars = {"mark": "bar", "size": BAR}
    return _rows(frame, category, value, low, high, color, title, reference, value_format, bars)


def dots_with_intervals(
    frame: DataFrame,
    category: str,
    value: str,
    *,
    low: str | None = None,
    high: str | None = None,
    color: str | None = None,
    title: str | None = None,
    reference: float | None = None,
    value_format: str | None = None,
    log: bool = False,
) -> alt.LayerChart:
    """Dots instead of bars: for values whose zero means nothing, and for logarithmic axes."""
    dots = {"mark": "dots", "log": log}
    return _rows(frame, category, value, low, high, color, title, reference, value_format, dots)


def heatmap(
    frame: DataFrame,
    x: str,
    y: str,
    value: str,
    *,
    x_title: str | None = None,
    y_title: str | None = None,
    title: str | None = None,
) -> alt.LayerChart:
    """One coloured cell a pair of `x` and `y`, in the order in which they appear in the frame."""
    _require(frame, x, y, value)
    columns = alt.X(_field(x), type="ordinal", sort=None, title=x_title or _words(x), axis=alt.Axis(labelAngle=0))
    rows = alt.Y(_field(y), type="ordinal", sort=None, title=y_title or _words(y))
    scale = alt.Scale(scheme="viridis")
    shade = alt.Color(_field(value), type="quantitative", title=title or _words(value), scale=scale)
    cells = alt.Chart(frame).mark_rect().encode(columns, rows, shade, tooltip=_tooltip(frame, x, y, value))
    return _layered([cells]).properties(height=max(160, 24 * int(frame[y].nunique())))


def forest(findings: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Findings of one unit and margin as a forest plot: dot the estimate, bar the interval, dashes the margin.

    `findings` are the objects of ``findings.json``; those without an interval are left out.

    Raises
    ------
    InputError
        None has an interval, or they differ in unit.
    """
    rows = [_forest_row(f) for f in findings if has_interval(f)]
    units = sorted({str(f.get("unit", "")) for f in findings})
    if not rows or len(units) > 1:
        raise InputError(
            f"{len(rows)} findings with an interval, units {units}",
            expected="at least one, all of one unit",
            cure="group the findings by unit and draw one plot each",
        )
    frame = DataFrame(rows)
    colours = {verdict_name(verdict): VERDICT_COLOURS[verdict] for verdict in VERDICT_COLOURS}
    present = [name for name in colours if name in set(frame["verdict"])]
    colour = alt.Color("verdict", type="nominal", title=None, sort=present, legend=alt.Legend(symbolOpacity=1),
                       scale=alt.Scale(domain=present, range=[colours[name] for name in present]))  # fmt: skip
    y = _row_axis("finding")
    title = alt.X("low", type="quantitative", title=in_unit(0.0, units[0])[1] or "effect", scale=alt.Scale(zero=False))
    base = alt.Chart(frame)
    layers = [
        base.mark_rule(strokeWidth=5, opacity=0.45, strokeCap="round").encode(title, y, alt.X2("high"), color=colour),
        base.mark_circle(size=90, opacity=1).encode(
            alt.X("estimate", type="quantitative"), y, color=colour,
            tooltip=["claim", "estimate", "low", "high", "verdict"]),
        _rule(0.0, "x", dash=False),
    ]  # fmt: skip
    margins = {
        in_unit(float(f["margin"]), units[0])[0] for f in findings if has_interval(f) and f.get("margin") is not None
    }
    layers += [_rule(margin, "x") for margin in sorted(margins)]
    return _layered(layers).properties(height=max(80, ROW * len(rows)))


def _forest_row(finding: Mapping[str, Any]) -> dict[str, Any]:
    low, high = finding["interval"]
    unit = str(finding.get("unit", ""))
    return {
        "finding": _broken(str(finding["id"]).removeprefix(f"{finding['study']}-").replace("-", " ")),
        "claim": str(finding["claim"]),
        "estimate": in_unit(finding["estimate"], unit)[0],
        "low": in_unit(low, unit)[0],
        "high": in_unit(high, unit)[0],
        "verdict": verdict_name(finding.get("verdict")),
    }


def _rows(
    frame: DataFrame,
    category: str,
    value: str,
    low: str | None,
    high: str | None,
    color: str | None,
    title: str | None,
    reference: float | None,
    value_format: str | None,
    look: Mapping[str, Any],
) -> alt.LayerChart:
    _require(frame, category, value, low, high, color)
    name = title or _words(value)
    scale = alt.Scale(type="log") if look.get("log") else alt.Scale(zero=look["mark"] == "bar")
    frame = frame.assign(**{category: [_broken(name) for name in frame[category]]})
    encodings: dict[str, Any] = {"y": _row_axis(_field(category))}
    if color is not None:
        encodings["color"] = _colour(frame, color, legend=color != category)
    series = 1
    if color is not None and color != category:
        encodings["yOffset"] = alt.YOffset(_field(color), type="nominal", sort=None)
        series = int(frame[color].nunique())
    axis = _axis(frame, value, value_format)
    position = alt.X(_field(value), type="quantitative", title=name, scale=scale, axis=axis)
    base = alt.Chart(frame).encode(**encodings)
    mark = base.mark_bar(size=BAR, cornerRadiusEnd=2, opacity=0.85) if look["mark"] == "bar" else (
        base.mark_circle(size=80, opacity=1))  # fmt: skip
    layers = [mark.encode(position, tooltip=_tooltip(frame, category, color, value, low, high))]
    if low is not None and high is not None:
        start = alt.X(_field(low), type="quantitative", title=name, scale=scale)
        whisker = base.mark_rule(strokeWidth=2)
        if look["mark"] == "bar":  # over a bar of its own colour it would vanish; the theme's ink is seen
            whisker = alt.Chart(frame).mark_rule(strokeWidth=1.75).encode(
                **{channel: encodings[channel] for channel in encodings if channel != "color"})  # fmt: skip
        layers.append(whisker.encode(start, alt.X2(_field(high))))
    if reference is not None:
        layers.append(_rule(reference, "x"))
    height = max(ROW, 8 + (BAR + 5) * series) * int(frame[category].nunique())
    return _layered(layers).properties(height=max(90, height))


def _picked(color: str) -> alt.Parameter:
    """One or more series, picked by a click (or shift-click) on the legend."""
    return alt.selection_point(name="picked", fields=[_field(color)], bind="legend")


def _shown(series: alt.Parameter | None, here: float, elsewhere: float) -> Any:
    """Full opacity for the picked series, or for all while none is picked."""
    return alt.value(here) if series is None else alt.condition(series, alt.value(here), alt.value(elsewhere))


def _layered(layers: Sequence[alt.Chart]) -> alt.LayerChart:
    return alt.LayerChart(layer=list(layers))


def _rule(at: float, axis: str, *, dash: bool = True) -> alt.Chart:
    mark = alt.Chart(DataFrame({"at": [at]})).mark_rule(
        strokeDash=[5, 4] if dash else [1, 0], strokeWidth=1.25, color=REFERENCE
    )
    channel = alt.Y("at", type="quantitative") if axis == "y" else alt.X("at", type="quantitative")
    rule: alt.Chart = mark.encode(channel)
    return rule


def _x(frame: DataFrame, column: str, title: str | None, *, log: bool, padding: float | None = None) -> alt.X:
    return alt.X(
        _field(column),
        type="quantitative",
        title=title or _words(column),
        scale=_scale(log=log, padding=padding, nice=not log),
        axis=_axis(frame, column, None, log=log),
    )


def _scale(
    *,
    log: bool,
    zero: bool = False,
    domain: tuple[float, float] | None = None,
    padding: float | None = None,
    nice: bool = True,
) -> alt.Scale:
    options: dict[str, Any] = {"type": "log"} if log else {"zero": zero}
    if domain is not None:
        options["domain"] = list(domain)
    if padding is not None:
        options["padding"] = padding
    if not nice:
        options["nice"] = False
    return alt.Scale(**options)


def _axis(frame: DataFrame, column: str, form: str | None, *, log: bool = False) -> alt.Axis:
    """Ticks on whole numbers where the column holds whole numbers, on the values themselves on a log axis."""
    options: dict[str, Any] = {}
    values = frame[column].dropna()
    whole = values.dtype.kind in "iu"
    if form is not None:
        options["format"] = form
    elif len(values) and float(values.abs().max()) >= 1e5:
        options["format"] = "~s"
    elif whole:
        options["format"] = ",d"
    if whole:
        options["tickMinStep"] = 1
    if log:
        options["tickCount"] = 5
        if whole and values.nunique() <= FEW:
            options["values"] = [int(value) for value in sorted(values.unique())]
    return alt.Axis(**options)


def _colour(frame: DataFrame, column: str, *, legend: bool = True) -> alt.Color:
    order = [str(value) if isinstance(value, str) else value for value in frame[column].unique()]
    key = alt.Legend(symbolOpacity=1) if legend else None
    return alt.Color(_field(column), type="nominal", sort=order, title=None, legend=key)


def _tooltip(frame: DataFrame, *columns: str | None) -> list[alt.Tooltip]:
    shown = dict.fromkeys(column for column in columns if column is not None)
    return [
        alt.Tooltip(_field(column), type="quantitative", title=_words(column), format=",.4~g")
        if frame[column].dtype.kind == "f"
        else alt.Tooltip(_field(column), type="nominal", title=_words(column))
        for column in shown
    ]


def _row_axis(field: str) -> alt.Y:
    return alt.Y(field, type="nominal", sort=None, title=None, axis=alt.Axis(labelExpr="split(datum.label, '\\n')"))


def _broken(name: object) -> str:
    """The name on lines short enough for a narrow screen."""
    return "\n".join(textwrap.wrap(str(name), LABEL)) or str(name)


def _field(column: str) -> str:
    """Vega reads dots and brackets in a field's name as a path; a column's name is only a name."""
    for special in "\\.[]":
        column = column.replace(special, f"\\{special}")
    return column


def _words(column: str) -> str:
    return column.replace("_", " ")


def _require(frame: DataFrame, *columns: str | None) -> None:
    missing = [column for column in columns if column is not None and column not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            f"columns {missing} are not in the frame" if missing else "the frame has no rows",
            expected=f"some of: {', '.join(map(str, frame.columns))}" if missing else "at least one row",
            cure="name a column the frame has" if missing else "leave the chart out when there is nothing to draw",
        )
