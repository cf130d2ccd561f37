"""Text of data sets in `datasets`' formats, read from local folders."""

import json

import pytest

from deadweight.data import load_text
from deadweight.errors import SourceError


def saved(folder, rows):
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"hf:{folder}"


def line(number):
    return f"row {number} é " + "words " * 20


ROWS = {
    "text": lambda n: {"text": line(n)},
    "messages": lambda n: {"messages": [{"role": "user", "content": line(n)}, {"role": "assistant", "content": "yes"}]},
    "conversations": lambda n: {"conversations": [{"from": "human", "value": line(n)}]},
}


@pytest.mark.parametrize(("column", "row"), ROWS.items(), ids=ROWS)
def test_rows_are_joined_and_every_tenth_is_held_out(tmp_path, column, row):
    text = load_text(saved(tmp_path / column, [row(n) for n in range(200)]))
    held = text.validation.numpy().tobytes().decode()
    trained = text.train.numpy().tobytes().decode()
    assert held.startswith(line(0))
    assert held.count("row ") == 20
    assert trained.count("row ") == 180
    assert ("yes" in held) == (column == "messages")


def test_the_limit_is_on_rows_and_in_the_fingerprint(tmp_path):
    source = saved(tmp_path / "rows", [ROWS["text"](n) for n in range(200)])
    whole, some = load_text(source), load_text(source, limit=150)
    assert some.validation.numpy().tobytes().decode().count("row ") == 15
    assert whole.fingerprint != some.fingerprint
    assert some.fingerprint == load_text(source, limit=150).fingerprint


@pytest.mark.parametrize(
    ("rows", "tail", "word"),
    [
        ([{"image": 1}], "", "a column text, messages or conversations"),
        ([{"text": "short"}], "", "10,000 bytes"),
        ([{"text": "short"}], "#dev", "no split 'dev'"),
        ([], "/nowhere", "cannot be loaded"),
    ],
    ids=["columns", "short", "split", "nowhere"],
)
def test_what_cannot_be_learnt_from_is_refused(tmp_path, rows, tail, word):
    source = saved(tmp_path / "rows", rows or [{"text": ""}]) + tail
    with pytest.raises(SourceError, match=word):
        load_text(source)
