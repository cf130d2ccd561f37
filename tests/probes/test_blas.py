"""numpy's threads and torch's never wait for one another."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from deadweight.probes import profile, scrambling_fit
from deadweight.probes.blas import one_blas_thread
from deadweight.probes.scrambling_fit import r2_of


@pytest.fixture
def pools():
    """Threads of each BLAS, two to begin with."""

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        yield threads


def test_one_thread_inside_and_the_same_as_before_after(pools):
    before = pools()
    with one_blas_thread():
        assert set(pools()) == {1}
    assert pools() == before
    assert set(before) != {1}


def test_the_table_is_made_on_one_thread(pools, zoo, monkeypatch):
    seen = []

    def watched(moments, row):
        seen.append(set(pools()))
        return r2_of(moments, row)

    monkeypatch.setattr(scrambling_fit, "r2_of", watched)
    x, y = zoo.images()
    profile(zoo.build("timm_cls"), [(x, y)]).table()
    assert seen
    assert all(found == {1} for found in seen)
