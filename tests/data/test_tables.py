import csv
import json

import datasets
import pandas as pd
import pyarrow.parquet
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


PLAIN = 'text,label\none,yes\n"two, three",no\n'
READ = {  # what a file of bytes, and the options, must be read as
    "plain": (PLAIN.encode(), ""),
    "a byte-order mark": (b"\xef\xbb\xbf" + PLAIN.encode(), ""),
    "UTF-16": (PLAIN.encode("utf-16"), ""),
    "UTF-16 of the other order": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), ""),
    "UTF-32": (PLAIN.encode("utf-32"), ""),
    "semicolons": (b'text;label\none;yes\n"two, three";no\n', ""),
    "semicolons, commas within": (b"text;label\none;yes\ntwo, three;no\n", ""),
    "semicolons, lines of old Macs": (b"text;label\rone;yes\rtwo, three;no", ""),
    "tabs": (b"text\tlabel\none\tyes\ntwo, three\tno\n", ""),
    "bars": (b"text|label\none|yes\ntwo, three|no\n", ""),
    "a delimiter that is told": (b"text#label\none#yes\ntwo, three#no\n", "?delimiter=#"),
    "a delimiter that is named": (b"text\tlabel\none\tyes\ntwo, three\tno\n", "?delimiter=tab"),
    "a delimiter that is escaped": (b"text\tlabel\none\tyes\ntwo, three\tno\n", r"?delimiter=\t"),
    "a comma in a name": (b'"text";label\none;yes\ntwo, three;no\n', "?delimiter=;"),
    "Excel's line": (b"sep=;\r\ntext;label\r\none;yes\r\ntwo, three;no\r\n", ""),
    "old Macs": (PLAIN.replace("\n", "\r").encode(), ""),
    "Windows": (PLAIN.replace("\n", "\r\n").encode(), ""),
    "empty lines": (("\n\n" + PLAIN.replace("\n", "\n\n")).encode(), ""),
    "spaces around names": (PLAIN.replace("text,label", " text , label").encode(), ""),
    "columns without name or value": (b'text,label,,\none,yes,,\n"two, three",no,,\n', ""),
}


@pytest.mark.parametrize("case", READ)
def test_csv_files_as_they_come(tmp_path, case):
    content, options = READ[case]
    (tmp_path / "t.csv").write_bytes(content)
    table = read_table(parse_source(f"csv:{tmp_path}/t.csv{options}"))
    assert [dict(row) for row in table.rows] == [
        {"text": "one", "label": "yes"},
        {"text": "two, three", "label": "no"},
    ]


def test_a_comma_in_the_first_line_goes_before_other_marks(tmp_path):
    (tmp_path / "t.csv").write_text("text,yes;no|maybe\na,b\n")
    assert read_table(parse_source(f"csv:{tmp_path}/t.csv")).columns == ("text", "yes;no|maybe")


def test_an_encoding_that_is_told_goes_before_all(tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\nnuméro,oui\n".encode("cp1252"))
    with pytest.raises(SourceError, match=r"line 2 is not utf-8 \(byte 0xe9\)(.|\n)*encoding=cp1252"):
        read_table(parse_source(f"csv:{tmp_path}/t.csv"))
    table = read_table(parse_source(f"csv:{tmp_path}/t.csv?encoding=cp1252"))
    assert table.rows[0] == {"text": "numéro", "label": "oui"}


def test_a_field_may_be_a_whole_document_and_pythons_limit_stays(tmp_path):
    before = csv.field_size_limit()
    document = "w " * 200_000
    (tmp_path / "t.csv").write_text(f"text,label\n{document},yes\n")
    assert read_table(parse_source(f"csv:{tmp_path}/t.csv")).rows[0]["text"] == document
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_what_ends_no_line_of_json_ends_none_here(tmp_path, mark, start):
    rows = [{"text": f"one{mark}two", "label": "1"}, {"text": "three", "label": "0"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=mark < " ") for row in rows)
    (tmp_path / "t.jsonl").write_text(start + lines + "\n", encoding="utf-8")
    assert [dict(row) for row in read_table(parse_source(f"jsonl:{tmp_path}/t.jsonl")).rows] == rows


def test_a_class_number_of_the_hub_outside_its_names_is_refused(tmp_path):
    kind = datasets.ClassLabel(names=["no", "yes"])
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, -1, 1]})
    made._info.features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    made.to_parquet(tmp_path / "train.parquet")
    assert [row["label"] for row in read_table(parse_source(f"hf:{tmp_path}")).rows] == ["no", "", "yes"]
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 2, 1]})
    made._info.features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    (tmp_path / "other").mkdir()
    made.to_parquet(tmp_path / "other" / "train.parquet")
    with pytest.raises(SourceError, match=r"row 2 of .* has the class 2 in column 'label'\n.*0 to 1"):
        read_table(parse_source(f"hf:{tmp_path}/other"))


BROKEN = {
    "two columns of one name": ("x.csv", b"a,b,b\n1,2,3\n", "more than one column named 'b'"),
    "two keys of one name": ("x.jsonl", b'{"a": 1, "a": 2}\n', "more than one column named 'a'"),
    "values under no name": ("x.csv", b"a,b,\n1,2,3\n", "row 1, which ends on line 2, has 3 fields for 2"),
    "an open quote": ("x.csv", b'a,b\n"1,2\n3,4\n', "unexpected end of data"),
    "jsonl with a line that is none": ("x.jsonl", b'{"a": 1}\nhello\n', "line 2, column 1"),
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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("delimiter=,,", "one character"),
        ("delimiter=", "one character"),
        ("encoding=utf-9", "an encoding Python knows"),
    ],
)
def test_an_option_that_is_none_is_refused(tmp_path, option, message):
    (tmp_path / "t.csv").write_text(PLAIN)
    with pytest.raises(SourceError, match=message):
        read_table(parse_source(f"csv:{tmp_path}/t.csv?{option}"))


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    both = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(both, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="more than one column named 'text'"):
        read_table(parse_source(f"parquet:{tmp_path}/t.parquet"))


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
