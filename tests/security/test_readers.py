"""Any bytes given to a reader are read or refused with an error of ours; nothing else comes out."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deadweight.data.tables import read_table
from deadweight.errors import DeadweightError
from deadweight.lab import Cell
from deadweight.lab.records import Record
from deadweight.lab.serialization import CorruptRecord, decode, encode
from deadweight.prompting import load_task
from deadweight.source import parse_source

pytestmark = pytest.mark.slow

_FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
_RECORD = Record(Cell("toy", "square", {"number": 1}), {"square": 1}, {}, {})
_TEXT = encode(_RECORD)

_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_row = st.dictionaries(st.sampled_from(["text", "label", "premise", "x", ""]), _value, max_size=4)


def _read_or_refused(read):
    try:
        return read()
    except DeadweightError:
        return None


@given(body=st.binary(max_size=300) | st.text(max_size=300))
@_FUZZ
def test_any_bytes_are_a_record_or_damage(body):
    assert isinstance(_read_or_refused(lambda: decode(body, _RECORD.key)) or CorruptRecord(""), (Record, CorruptRecord))


@given(
    changes=st.dictionaries(st.sampled_from(["schema", "cell", "result", "measured", "context", "more"]), _value),
    field=st.sampled_from(["study", "kind", "params", "needs", "sources", "version"]),
    value=_value,
)
@_FUZZ
def test_any_change_of_a_record_is_damage(changes, field, value):
    body = json.loads(_TEXT)
    body |= changes
    if isinstance(body["cell"], dict):
        body["cell"][field] = value
    text = json.dumps(body)
    found = _read_or_refused(lambda: decode(text, _RECORD.key))
    assert found is None or isinstance(found, CorruptRecord) or json.loads(text) == json.loads(_TEXT)


@given(place=st.integers(0, len(_TEXT)), gone=st.integers(0, 40), new=st.text(max_size=10))
@_FUZZ
def test_any_edit_of_a_records_text_is_noticed(place, gone, new):
    text = _TEXT[:place] + new + _TEXT[place + gone :]
    found = _read_or_refused(lambda: decode(text.encode("utf-8", "surrogatepass"), _RECORD.key))
    assert found is None or isinstance(found, CorruptRecord) or found == _RECORD


@given(body=st.binary(max_size=300) | st.lists(_row, max_size=5).map(lambda rows: "\n".join(map(json.dumps, rows))))
@example(body='{"text": "\\ud800", "label": "a"}\n{"text": "x", "label": "b"}')
@example(body="[" * 50_000)
@example(body='{"text": ' + "9" * 5000 + ', "label": "a"}')
@_FUZZ
def test_any_json_lines_are_read_or_refused(tmp_path, body):
    path = tmp_path / "x.jsonl"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    _asked(path, "jsonl")


def _csv_text(rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


_cells = st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=5)


@given(
    body=st.binary(max_size=300) | st.text(alphabet='text,label"\n\r\0;\ufeffab', max_size=200) | _cells.map(_csv_text)
)
@example(body="text,label\n" + "x" * 200_000 + ",a\n")
@example(body="text,text,label\na,b,c\n")
@_FUZZ
def test_any_csv_is_read_or_refused(tmp_path, body):
    path = tmp_path / "x.csv"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    _asked(path, "csv")


def _asked(path, scheme):
    """Both readers of a table: the rows, and the task made of them, which must be able to ask its questions."""
    table = _read_or_refused(lambda: read_table(parse_source(f"{scheme}:{path}")))
    if table is not None:
        assert all(isinstance(value, str) for row in table.rows for value in row.values())
    task = _read_or_refused(lambda: load_task(f"{scheme}:{path}"))
    if task is not None:
        assert all(isinstance(task.ask(item), str) for item in task.items)
        assert task.digest.encode("utf-8")


@given(rows=st.lists(_row, min_size=1, max_size=4))
@settings(_FUZZ, max_examples=40)
def test_any_parquet_is_read_or_refused(tmp_path, rows):
    path = tmp_path / "x.parquet"
    pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows]).to_parquet(path)
    _asked(path, "parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _asked(path, "parquet")


@pytest.mark.soak
def test_a_record_of_any_bytes_for_long():
    @given(st.binary(max_size=2000))
    @settings(_FUZZ, max_examples=20_000)
    def look(body):
        _read_or_refused(lambda: decode(body, _RECORD.key))

    look()
