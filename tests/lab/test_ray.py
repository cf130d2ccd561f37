"""The Ray engine on a cluster of two nodes, both processes of this machine; one of them is killed on the way."""

import importlib.util
import os
import threading
import time

import pytest
import toy

import deadweight.lab.ray as engine
from deadweight.errors import InputError, MachineError
from deadweight.lab import Cell, Store, run_cells
from deadweight.lab.limits import Limits
from deadweight.studies import build_study
from deadweight.studies.frame.run import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]  # Ray's own, of files it leaves to the garbage collector


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("ray") is None or os.name == "nt":
        pytest.skip("Ray is not installed, or its clusters do not run here")
    ray = engine.import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    warm = ray.remote(toy.warm)  # a worker takes many seconds to start; none should start under a test's clock
    ray.get([warm.options(scheduling_strategy=on(node["NodeID"], soft=False)).remote() for node in ray.nodes()])
    yield made, second
    ray.shutdown()
    made.shutdown()


class _Finished:
    """Counts the cells that ended and keeps what was said of them."""

    def __init__(self):
        self.good, self.errors, self.notes = 0, [], 0

    def planned(self, cells, waiting): ...
    def started(self, cell): ...

    def note(self, cell, text, done):
        self.notes += 1

    def finished(self, cell, seconds, error):
        self.good += error is None
        self.errors += [error] if error else []


def _busy(node):
    from ray._private.state import available_resources_per_node

    return not available_resources_per_node().get(node.node_id, {"CPU": 1}).get("CPU")


def test_two_nodes_one_killed_and_the_results_are_those_of_one_process(tmp_path, cluster):
    made, second = cluster
    cells = toy.cells(5, pause=2.5)  # a worker outlives its node by a second or two, and may finish what is short
    watch = _Finished()

    def kill():
        while watch.good < 1 or not _busy(second):
            if watch.good == len(cells):
                return
            time.sleep(0.05)
        made.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    run_cells(cells, toy.work, Store(tmp_path / "ray"), engine=engine.Cluster(Limits()), observer=watch, retries=2)
    killer.join()
    run_cells(cells, toy.work, Store(tmp_path / "here"))
    assert toy.results(tmp_path / "ray") == toy.results(tmp_path / "here")
    assert len(toy.results(tmp_path / "ray")) == len(cells)
    assert watch.notes
    assert any("lost" in error for error in watch.errors), "the node died under no cell: nothing was tried again"


@pytest.mark.soak
def test_shards_of_a_depth_profile_are_merged_on_a_cluster(tmp_path, cluster):
    options = {"vision": "embedded:digits-vit", "batch_size": 16, "limit": 90, "shards": 3}
    there = run(build_study("depth", options), tmp_path / "ray", executor="ray")
    here = run(build_study("depth", options), tmp_path / "here")
    assert not there.failed
    assert [record.key for record in there] == [record.key for record in here]
    assert toy.results(tmp_path / "ray") == toy.results(tmp_path / "here")
    assert there.findings().as_json() == here.findings().as_json()


@pytest.mark.soak
def test_timing_cells_run_alone_on_a_cluster_too(tmp_path, cluster):
    cells = [Cell("toy", "span", {"number": n}, exclusive=n % 3 == 1) for n in range(9)]
    run_cells(cells, toy.span, Store(tmp_path), engine=engine.Cluster(Limits()))
    spans = {cell.key: Store(tmp_path).record(cell).measured for cell in cells}
    for cell in cells:
        if cell.exclusive:
            own = spans.pop(cell.key)
            assert all(one["ended"] <= own["began"] or own["ended"] <= one["began"] for one in spans.values())


@pytest.mark.soak
def test_what_no_node_has_is_refused_before_anything_runs(tmp_path, cluster):
    with pytest.raises(MachineError, match="8 CPUs"):
        run_cells([toy.one(1)], toy.work, Store(tmp_path), engine=engine.Cluster(Limits(cpus=8)))
    with pytest.raises(MachineError, match="1 GPUs"):
        run_cells([toy.one(1)], toy.work, Store(tmp_path), engine=engine.Cluster(Limits(gpus=1)))
    assert not toy.results(tmp_path)


@pytest.mark.soak
def test_bad_cells_fail_alone(tmp_path, cluster):
    cells = [toy.one(0, "killed"), toy.one(1, "raise"), toy.one(2, "hang"), toy.one(3)]
    store = Store(tmp_path / "run")
    run_cells(cells, toy.work, store, engine=engine.Cluster(Limits(timeout=4)), retries=1)
    errors = [store.failure(cell).error for cell in cells[:3]]
    assert "lost" in errors[0]
    assert errors[1] == "RuntimeError: out of luck"
    assert "longer than 4 s" in errors[2]
    assert store.record(cells[3]).result["square"] == 9
    assert not list(store.folder.glob(".cluster-*"))


def test_a_folder_the_cluster_does_not_see_is_refused(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(engine, "_sees", toy.blind)
    with pytest.raises(InputError, match="not seen from"):
        run_cells([toy.one(1)], toy.work, Store(tmp_path), engine=engine.Cluster(Limits()))


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else real(name))
    with pytest.raises(InputError, match=r"deadweight\[ray\]"):
        engine.Cluster(Limits())
