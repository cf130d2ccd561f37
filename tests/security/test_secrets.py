"""Keys, tokens and passwords: in no record, attempt, log, error or page, wherever they come from."""

import json
import logging

import pytest
import toy
import toy_study  # noqa: F401  # registers the study
from hypothesis import given
from hypothesis import strategies as st

from deadweight.cli import main
from deadweight.errors import InputError
from deadweight.lab import Cell, Outcome, Store, run_cells
from deadweight.secrets import HIDDEN, hidden, hide, holds_secret
from deadweight.studies import build_study
from deadweight.studies.frame.run import run

VALUE = "correct-horse-battery-staple"
SHAPES = {
    "hugging face": "hf_" + "aB3" * 11,
    "openai": "sk-" + "proj-" + "aB3" * 11,
    "github": "ghp_" + "aB3" * 12,
    "aws": "AKIA" + "ABCD1234" * 2,
    "in an address": "https://user:hunter2hunter2@host/path",
    "in a query": "https://host/path?token=hunter2hunter2&x=1",
}
NAMES = ["HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "DB_PASSWD", "GITHUB_TOKENS",
         "api_key", "SERVER_APIKEY", "MYKEY", "SSH_PASSPHRASE", "GOOGLE_CREDENTIALS"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_value_of_a_secret_variable_is_hidden(monkeypatch, name):
    monkeypatch.setenv(name, VALUE)
    assert hide(f"cannot log in with {VALUE}!") == f"cannot log in with {HIDDEN}!"
    assert holds_secret(VALUE)


@pytest.mark.parametrize("name", ["HOME", "KEYBOARD", "MONKEYS", "TOKENIZERS_PARALLELISM", "LANG"])
def test_other_variables_are_not(monkeypatch, name):
    monkeypatch.setenv(name, VALUE)
    assert hide(VALUE) == VALUE


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_what_looks_like_a_key_is_hidden(text):
    said = hide(f"before {text} after")
    assert HIDDEN in said
    assert "hunter2" not in said
    assert "aB3aB3" not in said
    assert said.startswith("before ")
    assert said.endswith(" after")


_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=_data)
def test_data_without_secrets_is_left_as_it_is(data):
    assert json.dumps(hidden(data)) == json.dumps(data)


def _everything_written(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_whatever_a_cell_says_no_file_holds_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)

    def work(cell, bench):
        if cell.params["number"] == 1:
            raise RuntimeError(f"401 for {VALUE} at {SHAPES['in an address']}")
        if cell.params["number"] == 2:
            raise InputError(f"the key {SHAPES['hugging face']}", expected=VALUE)
        said = {"answer": f"my key is {VALUE}", VALUE: [{"deep": SHAPES["openai"]}], "n": 12345678}
        return Outcome(said, {"note": SHAPES["github"]}, {"url": SHAPES["in a query"]})

    store, cells = Store(tmp_path / "run"), [toy.one(number) for number in range(3)]
    run_cells(cells, work, store)
    assert store.record(cells[0]).result["answer"] == f"my key is {HIDDEN}"
    for path, content in _everything_written(tmp_path).items():
        for secret in (VALUE, "hunter2", "aB3aB3aB3"):
            assert secret.encode() not in content, path


def test_digits_of_numbers_are_not_blotted_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PIN_PASSWORD", "12345678")
    store, cell = Store(tmp_path), toy.one(1)
    run_cells([cell], lambda cell, bench: Outcome({"x": 0.12345678, "n": 12345678}), store)
    assert store.record(cell).result == {"x": 0.12345678, "n": 12345678}


def test_a_cell_asked_for_with_a_secret_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)
    store, cell = Store(tmp_path), Cell("toy", "square", {"number": 1, "url": VALUE})
    run_cells([cell], toy.work, store)
    assert "holds a secret" in store.failure(cell).error
    assert not any(VALUE.encode() in content for content in _everything_written(tmp_path).values())


def test_a_study_with_a_secret_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="holds a secret") as caught:
        run(build_study("toy", {"name": SHAPES["hugging face"]}), tmp_path / "run")
    assert "hf_" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_error_on_the_terminal_holds_none(capsys, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)
    with pytest.raises(SystemExit):
        main(["run", f"/nowhere/{VALUE}.yaml"])
    out, err = capsys.readouterr()
    assert VALUE not in out + err
    assert HIDDEN in err


def test_what_libraries_log_is_shown_without(capsys, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)
    from deadweight.cli.options import Common
    from deadweight.cli.output import progress

    handlers = logging.root.handlers[:]
    try:
        logging.root.handlers.clear()
        progress(Common(verbose=True))
        logging.getLogger("some.library").warning("GET %s with %s", SHAPES["in a query"], {"bearer": VALUE})
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(logging.WARNING)
    err = capsys.readouterr().err
    assert "some.library" in err
    assert VALUE not in err
    assert "hunter2" not in err


def test_a_crash_is_told_without(monkeypatch, capsys):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)
    import sys

    from deadweight.cli import _told_without_secrets

    try:
        raise RuntimeError(VALUE)
    except RuntimeError as problem:
        _told_without_secrets(type(problem), problem, problem.__traceback__)
    err = capsys.readouterr().err
    assert "RuntimeError" in err
    assert VALUE not in err
    assert sys.excepthook is not None
