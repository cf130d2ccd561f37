import json

import pandas as pd
import pytest

from deadweight.data.tables import embedded_tables, read_table
from deadweight.errors import SourceError
from deadweight.source import parse_source

ROWS = [{"text": "çok güzel, really", "label": "1"}, {"text": "two\nlines", "label": "0"}]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_same_rows_from_every_kind_of_file(tmp_path, kind):
    write(tmp_path / f"t.{kind}", ROWS)
    table = read_table(parse_source(f"{kind}:{tmp_path}/t.{kind}"))
    assert [dict(row) for row in table.rows] == ROWS
    assert table.columns == ("text", "label")


def test_the_digest_names_the_content(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.parquet", ROWS)
    write(tmp_path / "c.csv", [*ROWS, {"text": "more", "label": "1"}])
    one, same, other = (
        read_table(parse_source(f"{path.suffix[1:]}:{path}")).digest for path in sorted(tmp_path.iterdir())
    )
    assert one == same != other


def test_numbers_read_as_they_are_written(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": [1.0, 0.5]}).to_parquet(tmp_path / "n.parquet")
    assert [row["label"] for row in read_table(parse_source(f"parquet:{tmp_path}/n.parquet")).rows] == ["1", "0.5"]


def test_embedded_tables_are_there():
    assert {"sentiment", "topic", "nli", "question_type"} <= set(embedded_tables())
    assert len(read_table(parse_source("embedded:nli")).rows) >= 120


BROKEN = {
    "csv of one width": ("x.csv", b"a,b\n1,2\n3\n", "row 2"),
    "csv not in UTF-8": ("x.csv", b"a,b\n\xff\xfe,2\n", "cannot be read"),
    "csv of names only": ("x.csv", b"a,b\n", "no rows"),
    "empty csv": ("x.csv", b"", "no rows"),
    "jsonl with half a line": ("x.jsonl", b'{"a": 1}\n{"a": ', "cannot be read"),
    "jsonl of lists": ("x.jsonl", b"[1, 2]\n", "line 1 is no JSON object"),
    "jsonl of differing rows": ("x.jsonl", b'{"a": 1}\n{"b": 1}\n', "row 2"),
    "parquet that is none": ("x.parquet", b"hello", "cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refused(tmp_path, case):
    name, content, message = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_table(parse_source(f"{name.split('.')[1]}:{tmp_path / name}"))


@pytest.mark.parametrize("source", ["csv:nowhere.csv", "parquet:nowhere.parquet", "embedded:nothing", "hf:org/data"])
def test_sources_that_lead_nowhere(source):
    with pytest.raises(SourceError):
        read_table(parse_source(source))


def test_a_missing_column_names_those_there_are(tmp_path):
    write(tmp_path / "t.csv", ROWS)
    table = read_table(parse_source(f"csv:{tmp_path}/t.csv"))
    table.require("text", "label")
    with pytest.raises(SourceError, match="text, label"):
        table.require("body")
