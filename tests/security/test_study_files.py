"""Study files and run folders from strangers: refused with one clear error, quickly, and nothing outside is touched."""

import json
import math
import time

import pytest
import toy
import toy_study  # noqa: F401  # registers the study
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deadweight.cli import main
from deadweight.errors import DeadweightError, InputError
from deadweight.lab import Cell, Store, run_cells
from deadweight.studies.frame.plan import Plan, read_yaml
from deadweight.studies.frame.run import load_study, run, run_name

pytestmark = pytest.mark.slow

_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "billion laughs": (_LAUGHS, "aliases"),
    "an anchor in itself": ("study: &a [*a]", "aliases"),
    "merge keys": ("x: &x {seed: 1}\nstudy: mlp\n<<: *x", "aliases"),
    "too large": ("study: mlp # " + "x" * 2**18, "bytes"),
    "too deep": ("study: " + "[" * 20_000, "nested too deeply"),
    "too deep, by lines": ("".join(" " * n + "a:\n" for n in range(600)), ""),
    "a python object": ("study: !!python/object/apply:os.system [touch hacked]", "could not determine a constructor"),
    "a python name": ("study: !!python/name:os.system", "could not determine a constructor"),
    "a huge number": ("study: mlp\nseed: " + "9" * 5000, ""),
    "a key twice": ("study: mlp\nseed: 1\nseed: 2", "given twice"),
    "bytes that are no text": (b"\xff\xfe\x00study: mlp", ""),
    "a NUL": ("study: ml\0p", ""),
    "two documents": ("study: mlp\n---\nstudy: depth", ""),
    "an unhashable key": ("? [a]\n: b", ""),
    "a number for a key": ("study: mlp\n1: 2", "not a word"),
    "no mapping": ("- study", "which study"),
    "infinity": ("study: mlp\nmargin: .inf", "margin"),
    "not a number": ("study: mlp\nmargin: .nan", "margin"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_yaml_is_refused_in_a_moment(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, said = BOMBS[name]
    (tmp_path / "s.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_study(tmp_path / "s.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert time.monotonic() - began < 20
    assert not (tmp_path / "hacked").exists()


def _refused_or_read(read):
    """A reader of a stranger's file has two ways out: what it read, or an error of ours."""
    try:
        return read()
    except DeadweightError:
        return None


_yaml_like = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="study: mlp\n-[]{}&*!|>%@`\"'#,?0159eE.~\t", max_size=200),
    st.dictionaries(
        st.sampled_from(["study", "seed", "limit", "images", "variants", "seeds", "recipe", "margin", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=6,
    ).map(lambda options: yaml.safe_dump({"study": "mlp", **options}, allow_unicode=True)),
)


@given(text=_yaml_like | st.binary(max_size=100))
@example(text='study: mlp\nimages: "\\ud800"')
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_study_file_is_read_or_refused(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    _refused_or_read(lambda: load_study(path))


_json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["schema", "cells", "skipped", "study", "kind", "params", "needs", "sources", "seconds"]),
        inner, max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


_cell = Cell("toy", "square", {"number": 1}, needs=("a" * 16,)).identity
_nearly = st.builds(
    lambda name, value: {"cells": [{**_cell, name: value}], "skipped": []},
    st.sampled_from([*_cell, "exclusive", "seconds"]), _json_like,
)  # fmt: skip


@given(body=_json_like | _nearly)
@example(body={"cells": [{**_cell, "params": {"x": math.nan}}], "skipped": []})
@example(body={"cells": [{**_cell, "seconds": math.inf}], "skipped": []})
@example(body={"cells": [{**_cell, "seconds": -1}], "skipped": []})
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_plan_is_read_or_refused(tmp_path, body):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(body))
    plan = _refused_or_read(lambda: Plan.read(path))
    for cell in plan.cells if plan else ():
        assert isinstance(cell.label, str)
        assert len(cell.key) == 16
        assert 0 <= cell.seconds < math.inf


_CLIMBING = [
    "../../etc",
    "..",
    "/etc/passwd",
    "0" * 15,
    "0" * 17,
    "0123456789ABCDEF",
    "x" * 16,
    "",
    "a/../b",
    "0" * 16 + "\n",
]


@pytest.mark.parametrize("key", _CLIMBING)
def test_no_key_leads_out_of_the_folder(tmp_path, key):
    with pytest.raises(InputError, match="16 hexadecimal digits"):
        Store(tmp_path).folder_of(key)


def test_cells_of_any_name_stay_in_the_folder(tmp_path):
    names = [
        "../../up",
        "/absolute",
        "a\0b",
        "..\\..\\up",
        "x" * 5000,
        "cells/../../..",
        "\u202eevil",
        "~root",
        "$(reboot)",
    ]
    cells = [Cell("toy", "square", {"number": 1, "what": None, "name": name}) for name in names]
    cells += [Cell(name, name, {"number": 1}) for name in names]
    (tmp_path / "inside").mkdir()
    run_cells(cells, toy.work, Store(tmp_path / "inside" / "run"))
    assert len(toy.results(tmp_path / "inside" / "run")) == len(cells)
    assert {path.name for path in tmp_path.iterdir()} == {"inside"}
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {"run", "run.log"}
    assert {len(path.name) for path in (tmp_path / "inside" / "run" / "cells").iterdir()} == {16}


def test_a_needed_cell_that_is_a_path_fails_its_cell(tmp_path):
    cell = Cell("toy", "square", {"number": 1}, needs=("../../../etc",))
    run_cells([cell], toy.work, Store(tmp_path / "run"))
    assert "needs the record" in Store(tmp_path / "run").failure(cell).error


def test_a_model_cell_that_is_a_path_is_no_way_out(tmp_path):
    (tmp_path / "s.yaml").write_text("study: depth\nmodel_cell: ../../../elsewhere\nlimit: 20\n")
    records = run(tmp_path / "s.yaml", tmp_path / "run")
    assert {failure.error.split("\n")[0] for failure in records.failed} == {
        "cell " + failure.cell.key + " needs the record of ../../../elsewhere, which is not there"
        for failure in records.failed
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [("../../x.yaml", "x"), ("/tmp/..", "study"), ("...", "study"), ("a/b/c.yaml", "c"), (".hidden.yaml", "hidden")],
)
def test_the_default_folder_of_a_run_is_below_runs(given, name):
    assert run_name(given) == name


def test_a_link_in_the_place_of_a_record_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    store, cell = Store(tmp_path / "run"), toy.one(2)
    store.prepare([cell])
    (store.folder_of(cell.key) / "record.json").symlink_to(outside)
    run_cells([cell], toy.work, store)
    assert store.record(cell).result["square"] == 4
    assert outside.read_text() == "precious"


def test_the_verbs_refuse_a_folder_that_is_no_runs(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(_LAUGHS)
    (tmp_path / "plan.json").write_text('{"cells": [{"study": 1}], "skipped": []}')
    for verb in ("status", "report", "export"):
        with pytest.raises(SystemExit) as ended:
            main([verb, str(tmp_path)])
        assert ended.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_reading_yaml_gives_plain_values(tmp_path):
    (tmp_path / "s.yaml").write_text("a: [1, 2.5, yes, null, text]\nb: {c: d}\n")
    assert read_yaml(tmp_path / "s.yaml") == {"a": [1, 2.5, True, None, "text"], "b": {"c": "d"}}
