"""A profile in shards is the profile of the whole, wherever the shards are done."""

import pytest

from deadweight.lab import Store
from deadweight.studies import build_study
from deadweight.studies.depth.shards import part
from deadweight.studies.frame.run import run

pytestmark = pytest.mark.slow

OPTIONS = {"vision": "embedded:digits-vit", "batch_size": 16, "limit": 90}


@pytest.mark.parametrize("items", [1, 15, 16, 17, 90, 160])
@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_parts_are_whole_batches_and_cover_everything_once(items, shards):
    parts = [part(range(items), 16, shard, shards) for shard in range(shards)]
    assert [index for one in parts for index in (one[i] for i in range(len(one)))] == list(range(items))
    assert all(one.start % 16 == 0 for one in parts)
    sizes = [-(-len(one) // 16) for one in parts]
    assert max(sizes) - min(sizes) <= 1


def _profile(records):
    return next(iter(records.where(kind="profile"))).result


def _close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _close(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
    else:
        assert one == other


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(build_study("depth", OPTIONS), tmp_path_factory.mktemp("whole"))


def test_shards_give_the_table_intervals_and_findings_of_the_whole(tmp_path, whole):
    records = run(build_study("depth", {**OPTIONS, "shards": 3}), tmp_path)
    assert not records.failed
    assert [record.result["n"] for record in records.where(kind="shard")] == [32, 32, 26]
    _close(_profile(records), _profile(whole))
    ours, theirs = records.findings().as_json(), whole.findings().as_json()
    for one, other in zip(ours["findings"], theirs["findings"], strict=True):
        _close({**one, "evidence": [], "command": ""}, {**other, "evidence": [], "command": ""})
    assert len(list(Store(tmp_path).folder.rglob("profile.safetensors"))) == 4


def test_more_shards_than_batches_are_as_many_as_there_are_batches():
    cells = build_study("depth", {**OPTIONS, "shards": 50}).cells()
    assert [cell.kind for cell in cells] == ["skip"] + ["shard"] * 6 + ["profile"]


def test_one_shard_asks_for_the_very_cells_of_before():
    keys = [[cell.key for cell in build_study("depth", {**OPTIONS, **more}).cells()] for more in ({}, {"shards": 1})]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("kind", ["depth", "mlp"])
def test_random_weights_are_the_same_in_every_process(kind):
    """Else another process would examine another model than the one whose fingerprint is in the key."""
    options = {"vision": "embedded:digits-vit", "limit": 90}
    keys = {seed: [build_study(kind, {**options, "seed": seed}).cells()[0].key for _ in range(2)] for seed in (0, 1)}
    assert keys[0][0] == keys[0][1] != keys[1][0] == keys[1][1]
