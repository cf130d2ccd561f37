"""`write_page`: findings, charts, tables and facts as one file that opens offline.

The Vega runtime is inlined once, chart specifications ride along as JSON, and a content security policy of
script hashes lets nothing else run and nothing be fetched, whatever a model's or a label's name may hold.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from numbers import Real
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from pandas import DataFrame
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from deadweight.errors import InputError, MachineError
from deadweight.report.cards import Card, cards_of, counts, has_interval, headlines
from deadweight.report.charts import forest
from deadweight.report.drawings import drawing, vega_bundle
from deadweight.report.parts import Action, Figure, Section, Table
from deadweight.report.theme import DARK, LIGHT
from deadweight.report.wording import code_spans, number


@dataclass(frozen=True)
class _Rows:
    """A table ready for the template: headings, whether each column is numeric, the cells as (text, sort key)."""

    title: str
    caption: str
    head: list[tuple[str, bool]]
    body: list[list[tuple[str, str]]]


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    findings: Sequence[Mapping[str, Any]],
    sections: Sequence[Section],
    facts: Mapping[str, str],
    actions: Mapping[str, Action] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    failed: Sequence[Mapping[str, Any]] = (),
    comparison: str = "",
) -> Path:
    """Write the report and return its path; a reader never sees half a page.

    Parameters
    ----------
    findings:   the objects of ``findings.json``.
    sections:   one per study, in the order they are read.
    facts:      what ran where: machine, versions, sources.
    actions:    what to do about a finding, by its id.
    skipped:    (study, reason) of each study that was not run.
    failed:     one mapping per failed cell, e.g. ``{"cell": …, "error": …}``.
    comparison: what a page of several runs says first; it has no findings of its own.

    Raises
    ------
    InputError
        Two sections or two figures share an id.
    MachineError
        The file cannot be written.
    """
    _refuse_doubles("section", [section.id for section in sections])
    sections = [_with_forests(section, findings) for section in sections]
    figures = [figure for section in sections for figure in section.figures]
    _refuse_doubles("figure", [figure.id for figure in figures])
    cards = cards_of(findings, actions)
    by_study: dict[str, list[Card]] = {}
    for card in cards:
        by_study.setdefault(card.study, []).append(card)
    known = {section.id for section in sections}
    bundle, script = vega_bundle(), _asset("page.js")
    html = _environment().get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        comparison=comparison,
        counts=counts(findings),
        headlines=headlines(findings, cards),
        total=len(findings),
        by_study=by_study,
        elsewhere=[card for card in cards if card.study not in known],
        sections=sections,
        tables={section.id: [_rows(table) for table in section.tables] for section in sections},
        drawings={figure.id: drawing(figure) for figure in figures},
        facts=facts,
        skipped=skipped,
        failed=_rows(Table("Cells that failed", DataFrame(list(failed)))) if failed else None,
        themes=htmlsafe_json_dumps({"light": LIGHT, "dark": DARK}),
        css=Markup(_asset("page.css")),  # noqa: S704  # our own files, as they are
        bundle=Markup(bundle),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=_policy(bundle, script),
    )  # fmt: skip
    return _write(Path(path), html)


def _with_forests(section: Section, findings: Sequence[Mapping[str, Any]]) -> Section:
    """The section with one forest plot a unit, where at least two of its findings can be compared."""
    mine = [f for f in findings if f["study"] == section.id and f.get("verdict") is not None and has_interval(f)]
    plots = []
    for index, unit in enumerate(dict.fromkeys(str(f.get("unit") or "") for f in mine)):
        same = [f for f in mine if str(f.get("unit") or "") == unit]
        if len(same) > 1:
            caption = (
                "Dot: what was measured. Bar: where the true loss lies, with 95 % confidence. Dashed: what we accept. "
                "A bar wholly to its left is dead weight, one wholly to its right is needed."
            )
            plots.append(Figure(f"{section.id}-findings-{index + 1}", "Findings side by side", caption, forest(same)))
    return replace(section, figures=(*plots, *section.figures))


def _rows(table: Table) -> _Rows:
    frame = table.frame
    numeric = [bool(is_numeric_dtype(kind) and not is_bool_dtype(kind)) for kind in frame.dtypes]
    head = [(str(name).replace("_", " "), is_number) for name, is_number in zip(frame.columns, numeric, strict=True)]
    body = [[(number(value), _sort_key(value)) for value in row] for row in frame.itertuples(index=False, name=None)]
    return _Rows(table.title, table.caption, head, body)


def _sort_key(value: Any) -> str:
    """What a cell is sorted by: its number where it is one, or begins with one (``82.1 ± 0.3``); else its text."""
    if isinstance(value, Real):
        return "" if math.isnan(float(value)) else repr(float(value))
    leading = re.match(r"[−-]?\d[\d,]*(\.\d+)?(?=\s|%|$)", str(value))
    return leading[0].replace("−", "-").replace(",", "") if leading else ""


def _refuse_doubles(what: str, ids: Sequence[str]) -> None:
    doubles = sorted({name for name in ids if ids.count(name) > 1})
    odd = [name for name in ids if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)]
    if doubles or odd:
        raise InputError(
            f"{what} ids {doubles or odd}",
            expected="unique ids of letters, digits, '.', '-' and '_'",
            cure=f"rename the {what}s",
        )


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts by their hash, inline styles, nothing from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    # Vega compiles its expressions with Function(), hence unsafe-eval; the specifications are this package's own.
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("deadweight.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code_spans"] = code_spans
    return environment


@cache
def _asset(name: str) -> str:
    return (resources.files("deadweight.report") / "templates" / name).read_text(encoding="utf-8")


def _write(path: Path, html: str) -> Path:
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file is private; a report is there to be shown
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}",
            expected="a folder that can be written, with room for a few megabytes",
            cure="free space or choose another folder",
        ) from error
    return path
