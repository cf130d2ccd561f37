"""Charts and the page: findings and curves become one file that opens offline.

`charts` (altair) and `write_page` (jinja2, the inlined Vega bundle) are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deadweight.report.parts import Action, Figure, Section, Table

if TYPE_CHECKING:
    from deadweight.report import charts
    from deadweight.report.page import write_page

__all__ = ["Action", "Figure", "Section", "Table", "charts", "write_page"]


def __getattr__(name: str) -> Any:
    if name == "charts":
        return import_module("deadweight.report.charts")
    if name == "write_page":
        return import_module("deadweight.report.page").write_page
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
