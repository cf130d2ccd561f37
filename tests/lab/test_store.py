import errno
import json
import os
from importlib import resources

import jsonschema
import pytest

from deadweight.errors import MachineError
from deadweight.lab import Cell, Outcome, Records, Store, run_cells
from deadweight.lab.records import Record


def _cell(number, **more):
    return Cell("toy", "square", {"number": number}, **more)


def _square(cell, bench):
    return Outcome({"square": cell.params["number"] ** 2})


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("record.json")}


def test_the_key_depends_on_everything_the_result_does_and_on_nothing_else():
    base = _cell(2)
    assert base.key == _cell(2, exclusive=True, seconds=9).key
    others = [_cell(3), _cell(2, version=2), _cell(2, needs=("a",)), _cell(2, sources={"images": "f"})]
    assert len({base.key, *(cell.key for cell in others)}) == 5
    assert Cell.from_json(json.loads(json.dumps(base.identity))).key == base.key


def test_a_finished_cell_is_not_done_again(tmp_path):
    done = []

    def work(cell, bench):
        done.append(cell.params["number"])
        return _square(cell, bench)

    store = Store(tmp_path)
    run_cells([_cell(1), _cell(2)], work, store)
    run_cells([_cell(1), _cell(2), _cell(3)], work, store)
    assert done == [1, 2, 3]


def test_a_record_is_what_its_schema_says(tmp_path):
    store = Store(tmp_path)
    run_cells([_cell(4)], _square, store)
    written = json.loads((tmp_path / "cells" / _cell(4).key / "record.json").read_text())
    schema = json.loads(resources.files("deadweight.lab").joinpath("schemas/record.schema.json").read_text())
    jsonschema.validate(written, schema)
    assert written["result"] == {"square": 16}
    assert written["context"]["versions"]["torch"]


def test_a_cell_that_raises_leaves_an_attempt_and_the_others_go_on(tmp_path):
    broken = {2}

    def work(cell, bench):
        if cell.params["number"] in broken:
            raise RuntimeError("out of luck")
        return _square(cell, bench)

    cells = [_cell(n) for n in (1, 2, 3)]
    store = Store(tmp_path)
    run_cells(cells, work, store)
    run_cells(cells, work, store)
    assert [store.record(cell) is not None for cell in cells] == [True, False, True]
    failure = store.failure(cells[1])
    assert (failure.error, failure.attempts) == ("RuntimeError: out of luck", 2)
    assert "Traceback" in json.loads((store.folder_of(cells[1].key) / "attempts" / "2.json").read_text())["detail"]
    broken.clear()
    run_cells(cells, work, store)
    assert store.record(cells[1]).result == {"square": 4}


def test_a_cell_waits_for_the_record_it_needs(tmp_path):
    first = _cell(1)
    second = _cell(2, needs=(first.key,))

    def work(cell, bench):
        if cell.needs:
            return Outcome({"from": bench.record_of(cell.needs[0]).result["square"]})
        return _square(cell, bench)

    store = Store(tmp_path)
    run_cells([second], work, store)
    assert "needs the record" in store.failure(second).error
    run_cells([first, second], work, store)
    assert store.record(second).result == {"from": 1}


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 1}', "null"], ids=["empty", "cut", "incomplete", "null"])
def test_a_damaged_record_is_set_aside_and_done_again(tmp_path, damage):
    store = Store(tmp_path)
    run_cells([_cell(5)], _square, store)
    path = store.folder_of(_cell(5).key) / "record.json"
    path.write_text(damage)
    run_cells([_cell(5)], _square, store)
    assert store.record(_cell(5)).result == {"square": 25}
    assert [old.read_text() for old in path.parent.glob("record.corrupt-*.json")] == [damage]


def test_what_cells_draw_does_not_depend_on_what_ran_before(tmp_path):
    import random

    import numpy as np
    import torch

    def draw(cell, bench):
        return Outcome({"draws": [random.random(), float(np.random.rand()), float(torch.rand(()))]})

    run_cells([_cell(1), _cell(2)], draw, Store(tmp_path / "both"))
    run_cells([_cell(2)], draw, Store(tmp_path / "one"))
    both, one = Store(tmp_path / "both"), Store(tmp_path / "one")
    assert both.record(_cell(2)).result == one.record(_cell(2)).result
    assert both.record(_cell(1)).result != one.record(_cell(2)).result


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    run_cells([_cell(1)], _square, store)
    before = _files(tmp_path)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("deadweight.lab.store.os.fsync", full)
    with pytest.raises(MachineError, match=r"No space left(.|\n)*free some space") as caught:
        run_cells([_cell(1), _cell(2), _cell(3)], _square, store)
    assert caught.value.exit_code == 3
    monkeypatch.undo()
    assert _files(tmp_path) == before
    assert not list(tmp_path.rglob(".record.json.*"))
    run_cells([_cell(n) for n in (1, 2, 3)], _square, store)
    assert len(_files(tmp_path)) == 3


def test_a_disk_that_fills_inside_a_cell_stops_the_run(tmp_path):
    def work(cell, bench):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MachineError, match="No space left"):
        run_cells([_cell(1), _cell(2)], work, Store(tmp_path))


@pytest.mark.parametrize("place", ["a file", "below a file", "proc"])
def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, place):
    (tmp_path / "file").write_text("x")
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "proc": "/proc/nothing"}[place]
    with pytest.raises(MachineError, match="--out"):
        Store(folder).prepare()


def test_a_missing_kernel_fails_its_cell_and_no_other(tmp_path):
    def work(cell, bench):
        if cell.params["number"] == 1:
            raise MachineError("no flash kernel here", cure="use sdpa")
        return _square(cell, bench)

    store = Store(tmp_path)
    run_cells([_cell(1), _cell(2)], work, store)
    assert "no flash kernel" in store.failure(_cell(1)).error
    assert store.record(_cell(2)) is not None


def test_no_cell_is_started_after_the_budget(tmp_path):
    store = Store(tmp_path)
    run_cells([_cell(1), _cell(2)], _square, store, budget=-1.0)
    assert store.record(_cell(1)) is None
    assert store.failure(_cell(1)).error == "not run yet"


def test_records_are_selected_and_tabled():
    records = Records(
        [Record(_cell(n), {"square": n * n, "curve": [1, 2]}, {"seconds": 0.1}, {}) for n in (1, 2)], failed=()
    )
    table = records.table()
    assert list(table["square"]) == [1, 4]
    assert "curve" not in table
    assert [record.result["square"] for record in records.where(number=2)] == [4]
    assert len(records.where(kind="cube")) == 0
