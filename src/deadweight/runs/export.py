"""Tables for other programs: CSV that no spreadsheet executes, Parquet, LaTeX."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

import pandas as pd

from deadweight.errors import InputError
from deadweight.lab.cell import Json
from deadweight.lab.files import write_atomically
from deadweight.lab.findings import Findings
from deadweight.lab.records import Records

Format = Literal["csv", "parquet", "latex"]
ENDINGS: dict[str, str] = {"csv": ".csv", "parquet": ".parquet", "latex": ".tex"}
_FORMULA = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠")  # what a spreadsheet may take for the start of one


def records_frame(records: Records) -> pd.DataFrame:
    """A row per record. Columns ``param.…``, ``result.…`` and ``measured.…`` hold scalars as they are and lists and
    mappings as JSON, so that nothing is left out and names never clash."""
    rows = []
    for record in records:
        row: dict[str, Json] = {"key": record.key, "study": record.cell.study, "kind": record.cell.kind}
        for part, values in (("param", record.cell.params), ("result", record.result), ("measured", record.measured)):
            for name, value in values.items():
                nested = isinstance(value, (dict, list, tuple))
                row[f"{part}.{name}"] = json.dumps(value, ensure_ascii=False) if nested else value
        rows.append(row)
    return pd.DataFrame(rows)


def findings_frame(findings: Findings) -> pd.DataFrame:
    """A row for each finding, the interval as two columns and the evidence as keys with spaces between."""
    rows = []
    for finding in findings:
        row = finding.as_json()
        row["low"], row["high"] = row.pop("interval")
        row["evidence"] = " ".join(row["evidence"])
        rows.append(row)
    columns = ["study", "id", "claim", "estimate", "low", "high", "unit", "n", "level", "margin", "verdict"]
    return pd.DataFrame(rows, columns=[*columns, "evidence", "command"])


def write_table(frame: pd.DataFrame, path: Path, form: Format) -> None:
    """Write `frame` at `path`, atomically; an unknown format raises :class:`InputError`."""
    if form == "csv":
        write_atomically(path, csv_text(frame))
    elif form == "parquet":
        buffer = io.BytesIO()
        _even(frame).to_parquet(buffer, index=False)
        write_atomically(path, buffer.getvalue())
    elif form == "latex":
        write_atomically(path, latex_text(frame))
    else:
        raise InputError(f"format {form!r}", expected=f"one of {', '.join(ENDINGS)}")


def csv_text(frame: pd.DataFrame) -> str:
    """CSV; text that a spreadsheet would take for a formula begins with an apostrophe, which it shows as text."""
    plain = frame.rename(columns=_disarmed).map(_disarmed)
    return str(plain.to_csv(index=False, lineterminator="\n"))


def latex_text(frame: pd.DataFrame) -> str:
    r"""A ``tabular`` for the package booktabs, every special character escaped; long keys and commands left out."""
    told = frame.drop(columns=["evidence", "command"], errors="ignore").map(_one_line)
    return str(told.to_latex(index=False, escape=True, na_rep="--", float_format="{:.4g}".format))


def _disarmed(value: Json) -> Json:
    if not isinstance(value, str):
        return value
    plain = value.replace("\0", "�")  # which some readers take for the end of the file
    plain = plain.replace("\r\n", "\n").replace("\r", "\n")  # else pandas writes it without quotes, as a line's end
    start = plain.lstrip(" \u00a0\ufeff\ufffd")
    return f"'{plain}" if start.startswith(_FORMULA) or start[:1].isspace() else plain


def _one_line(value: Json) -> Json:
    return " ".join(value.split()) if isinstance(value, str) else value


def _even(frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet wants one type a column: where values differ in type they are written as text."""
    even = frame.copy()
    for name in even.columns:
        kinds = {type(value) for value in even[name] if value is not None and value == value}
        if len(kinds) > 1 and not kinds <= {int, float}:
            even[name] = [None if value is None or value != value else str(value) for value in even[name]]
    return even
