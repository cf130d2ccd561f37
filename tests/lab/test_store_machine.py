"""The store against the simplest model of it there is, through any order of writes, deaths and damage."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from deadweight.lab import Cell, Outcome, Store, run_cells
from deadweight.lab.records import Record
from deadweight.lab.serialization import CorruptRecord, encode
from deadweight.lab.status import look_at

pytestmark = pytest.mark.slow

CELLS = [Cell("toy", "square", {"number": number}) for number in range(4)]
cells = st.sampled_from(CELLS)


class Stores(RuleBasedStateMachine):
    """Records, damage and attempts as three mappings; every look at the disk is made by a fresh store."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.records, self.damaged = {}, set()
        self.attempts = dict.fromkeys((cell.key for cell in CELLS), 0)
        Store(self.folder).prepare(CELLS)

    def teardown(self):
        shutil.rmtree(self.folder)

    def _path(self, cell):
        return self.folder / "cells" / cell.key / "record.json"

    @rule(cell=cells, value=st.integers(0, 3))
    def write(self, cell, value):
        record = Record(cell, {"value": value}, {}, {})
        Store(self.folder).write(record)
        self.records[cell.key] = record
        self.damaged.discard(cell.key)

    @rule(cell=cells, error=st.text(max_size=20))
    def fail(self, cell, error):
        Store(self.folder).fail(cell, error, "")
        self.attempts[cell.key] += 1
        assert Store(self.folder).failure(cell).error == error

    @rule(cell=cells, data=st.data())
    def die_while_writing(self, cell, data):
        """What is on disk after a death at any byte of the temporary file; the record before it stands."""
        text = encode(Record(cell, {"value": 9}, {}, {}))
        cut = data.draw(st.integers(0, len(text)))
        self._path(cell).with_name(".record.json.0123456789ab").write_text(text[:cut])

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def damage(self, data):
        key = data.draw(st.sampled_from(sorted(self.records)))
        path = self.folder / "cells" / key / "record.json"
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        del self.records[key]
        self.damaged.add(key)

    @rule(cell=cells)
    def forget(self, cell):
        self._path(cell).unlink(missing_ok=True)
        self.records.pop(cell.key, None)
        self.damaged.discard(cell.key)

    @rule(cell=cells)
    def two_runners_want_it(self, cell):
        with Store(self.folder).claim(cell) as first, Store(self.folder).claim(cell) as second:
            assert (first, second) == (True, False)
            assert Store(self.folder).claimed(cell.key)
            assert Store(self.folder).repair([cell]) == []  # not while another works on it
        assert not Store(self.folder).claimed(cell.key)

    @rule()
    def repair(self):
        said = Store(self.folder).repair(CELLS)
        assert sum("set aside" in sentence for sentence in said) == len(self.damaged)
        self.damaged.clear()
        assert not list(self.folder.rglob(".record.json.*"))

    @rule(wanted=st.lists(cells, unique_by=lambda cell: cell.key), unlucky=st.lists(cells))
    def run(self, wanted, unlucky):
        done = []

        def work(cell, bench):
            done.append(cell.key)
            if cell in unlucky:
                raise RuntimeError("out of luck")
            return Outcome({"value": 7})

        run_cells(wanted, work, Store(self.folder))
        assert done == [cell.key for cell in wanted if cell.key not in self.records]
        for cell in wanted:
            if cell.key in done:
                self.damaged.discard(cell.key)
                if cell in unlucky:
                    self.attempts[cell.key] += 1
                else:
                    self.records[cell.key] = Record(cell, {"value": 7}, {}, {})

    @invariant()
    def the_disk_says_what_the_model_says(self):
        store = Store(self.folder)
        for cell in CELLS:
            found, expected = store.look(cell.key), self.records.get(cell.key)
            assert isinstance(found, CorruptRecord) == (cell.key in self.damaged)
            assert (None if expected is None else expected.result) == (
                found.result if isinstance(found, Record) else None
            )
            assert store.failure(cell).attempts == self.attempts[cell.key]
        names = os.listdir(self.folder / "cells")
        assert sorted(names) == store.folders() == sorted(cell.key for cell in CELLS)
        standing = look_at(CELLS, store)
        assert standing.status.total("done") == len(self.records)
        assert {key for key, _ in standing.damaged} == self.damaged
        for path in self.folder.rglob("record.json"):
            if path.parent.name in self.records:
                json.loads(path.read_text())


def _run(examples, steps):
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None,
        suppress_health_check=list(HealthCheck), derandomize=examples < 100,
    )  # fmt: skip
    run_state_machine_as_test(Stores, settings=chosen)


def test_the_store_does_what_its_model_does():
    _run(15, 20)


@pytest.mark.soak
def test_the_store_does_what_its_model_does_for_long():
    _run(400, 40)
