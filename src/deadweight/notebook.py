"""How values show themselves in a notebook: one small HTML table, everything escaped, readable in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

_CELL = "padding:0.25em 0.8em 0.25em 0;text-align:{align};vertical-align:top"


def table_html(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]], *, notes: Sequence[str] = ()) -> str:
    """An HTML table of `rows` under `head`, with a caption above and notes below.

    Numbers are written with four significant digits and right-aligned; None and NaN are a dash. No colours are set,
    so that the notebook's own theme shows.
    """
    lines = [f"<table><caption style='text-align:left;font-weight:600'>{html.escape(caption)}</caption><thead><tr>"]
    lines += [f"<th scope='col' style='{_style(None)}'>{html.escape(str(name))}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        cells = (f"<td style='{_style(value)}'>{html.escape(_told(value))}</td>" for value in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines.append("</tbody></table>")
    lines += [f"<p><small>{html.escape(str(note))}</small></p>" for note in notes]
    return "".join(lines)


def _style(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return _CELL.format(align="right" if number else "left")


def _told(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["table_html"]
