"""Records as text: what is written is read, whatever is not whole is told apart, old schemas are understood."""

import copy
import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import InputError
from deadweight.lab import Cell, Store
from deadweight.lab.records import SCHEMA, Record
from deadweight.lab.serialization import MIGRATIONS, CorruptRecord, decode, encode

pytestmark = pytest.mark.slow

CELL = Cell("toy", "square", {"number": 7, "name": "naïve “quotes” \\ \n"}, sources={"images": "f00d"})
RECORD = Record(CELL, {"square": 49, "curve": [0.1, None, True]}, {"seconds": 0.25}, {"threads": 2})

_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_mapping = st.dictionaries(st.text(max_size=6), _plain, max_size=4)


@given(params=_mapping, result=_mapping, measured=_mapping)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(params, result, measured):
    record = Record(Cell("toy", "square", params), result, measured, {})
    read = decode(encode(record).encode("utf-8", "backslashreplace"), record.key)
    assert read == record
    assert json.dumps(read.result) == json.dumps(result)  # 1, 1.0 and True are equal, and not the same


def test_the_digest_is_that_of_everything_else():
    body = json.loads(encode(RECORD))
    said = body["context"].pop("digest")
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    assert said == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_a_file_cut_anywhere_is_never_taken_for_a_record():
    text = encode(RECORD).encode()
    for length in range(len(text)):
        assert isinstance(decode(text[:length], RECORD.key), CorruptRecord), length
        padded = text[:length] + b"\0" * (len(text) - length)  # as a file system may leave it after a power cut
        assert isinstance(decode(padded, RECORD.key), CorruptRecord), length


@pytest.mark.parametrize("bit", [0, 2, 5, 6])
def test_a_flipped_bit_is_noticed_unless_the_content_is_the_same(bit):
    text = encode(RECORD).encode()
    for place in range(len(text)):
        wrong = bytearray(text)
        wrong[place] ^= 1 << bit
        try:
            found = decode(bytes(wrong), RECORD.key)
        except InputError:  # the digit of the schema became a higher one
            found = CorruptRecord("newer")
        assert isinstance(found, CorruptRecord) or found == RECORD, (place, bytes(wrong))


def _changed(**parts):
    body = json.loads(encode(RECORD))
    for name, value in parts.items():
        body[name] = value
    return json.dumps(body)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not a whole record"),
        (b"null", "not a whole record"),
        (b"[]", "not a whole record"),
        (b"[" * 100_000, "not a whole record"),
        (b"\xff\xfe{}", "not a whole record"),
        ("1" * 5000, "not a whole record"),
        (_changed(schema=True), "schema True"),
        (_changed(schema="2"), "schema '2'"),
        (_changed(schema=0), "schema 0"),
        (_changed(result={"square": 50}), "does not match its digest"),
        (_changed(context={"digest": None}), "does not match its digest"),
        (_changed(context={}), "digest"),
        (_changed(context=None), "not a whole record"),
        (_changed(cell=[]), "does not match its digest"),
        (encode(Record(Cell("toy", "square", {"number": 8}), {}, {}, {})), "record of another cell"),
    ],
    ids=["empty", "null", "list", "deep", "not-utf8", "huge-number", "schema-true", "schema-text", "schema-0",
         "edited", "digest-null", "digest-gone", "no-context", "no-cell", "another's"],
)  # fmt: skip
def test_what_is_no_record_is_told_why(text, reason):
    found = decode(text, RECORD.key)
    assert isinstance(found, CorruptRecord)
    assert reason in found.reason


def _of_schema_1():
    body = RECORD.as_json()
    return json.dumps({**body, "schema": 1}, indent=1)


def test_a_record_of_the_first_schema_is_brought_up_to_date_as_it_is_read():
    assert decode(_of_schema_1(), RECORD.key) == RECORD


def test_every_older_schema_has_its_migration():
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))


def test_a_migration_leaves_its_input_alone():
    body = json.loads(_of_schema_1())
    before = copy.deepcopy(body)
    MIGRATIONS[1](body)
    assert body == before


def test_a_record_of_the_first_schema_is_not_done_again(tmp_path):
    store = Store(tmp_path)
    store.prepare([CELL])
    path = store.folder_of(CELL.key) / "record.json"
    path.write_text(_of_schema_1())
    assert store.record(CELL) == RECORD
    store.tidy(CELL.key)
    assert path.read_text() == _of_schema_1()


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path):
    store = Store(tmp_path)
    store.prepare([CELL])
    path = store.folder_of(CELL.key) / "record.json"
    path.write_text(_changed(schema=SCHEMA + 1))
    for ask in (lambda: store.record(CELL), lambda: store.tidy(CELL.key)):
        with pytest.raises(InputError, match="upgrade deadweight"):
            ask()
    assert path.read_text() == _changed(schema=SCHEMA + 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}], ids=["nan", "infinity", "object", "set"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        encode(Record(CELL, {"square": value}, {}, {}))


def test_names_that_are_no_text_come_through(tmp_path):
    """A file's name may hold bytes that are no UTF-8; Python has them as lone surrogates."""
    cell = Cell("toy", "square", {"folder": b"caf\xe9".decode("utf-8", "surrogateescape")})
    store = Store(tmp_path)
    store.prepare([cell])
    record = Record(cell, {"classes": ["\udce9"]}, {}, {})
    store.write(record)
    assert Store(tmp_path).record(cell) == record
