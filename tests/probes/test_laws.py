"""The states are commutative monoids, and neither batches nor shards show in them."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.probes.collapse import nc1
from deadweight.probes.states import class_moments
from deadweight.probes.states.batch import Batch
from deadweight.probes.states.class_moments import ClassMoments
from deadweight.probes.states.feature_sample import FeatureSample
from deadweight.probes.states.image_means import ImageMeans

ROWS, WIDTH = 3, 4
STATES = {
    "image means": (ImageMeans, ImageMeans.of),
    "class moments": (ClassMoments, ClassMoments.of),
    "feature sample": (lambda: FeatureSample(size=7), lambda batch: FeatureSample.of(batch, size=7)),
}


def items(count, seed):
    """A batch of random items; some hashes repeat and some measures are undefined."""
    generator = np.random.default_rng(seed)
    measure = generator.normal(size=(ROWS, count))
    measure[0, generator.random(count) < 0.3] = np.nan
    features = {f"pooled.{row}": (10 + generator.normal(size=(count, WIDTH))).astype(np.float32) for row in range(ROWS)}
    hashes = generator.integers(0, 40, size=count).astype(np.uint64) << np.uint64(32)
    return Batch(hashes, {"raw_similarity": measure}, generator.integers(0, 4, size=count), features)


def part(batch, chosen):
    return Batch(
        batch.hashes[chosen],
        {name: values[:, chosen] for name, values in batch.measures.items()},
        batch.labels[chosen],
        {name: values[chosen] for name, values in batch.features.items()},
    )


def assert_same(one, two, exactly=False):
    left, right = one.arrays(), two.arrays()
    assert set(left) == set(right)
    for name in left:
        if exactly:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        else:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.fixture(params=["a scatter a class", "scatters summed"])
def budget(request, monkeypatch):
    if request.param == "scatters summed":
        monkeypatch.setattr(class_moments, "COVARIANCE_BYTES", 3 * 8 * ROWS * WIDTH * (WIDTH + 1) // 2)
    return request.param


sizes = st.integers(0, 9)
seeds = st.integers(0, 10_000)
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", STATES)
@laws
@given(size=sizes, seed=seeds)
def test_identity(name, size, seed):
    empty, of = STATES[name]
    state = of(items(size, seed))
    assert_same(state.merge(empty()), state, exactly=True)
    assert_same(empty().merge(state), state, exactly=True)


@pytest.mark.parametrize("name", STATES)
@laws
@given(numbers=st.tuples(sizes, sizes, sizes), seed=seeds)
def test_associative_and_commutative(name, numbers, seed, budget):
    a, b, c = (STATES[name][1](items(number, seed + i)) for i, number in enumerate(numbers))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    if name != "feature sample":  # of equal hash and label, sampled items keep the order they came in
        assert_same(a.merge(b), b.merge(a))


@laws
@given(numbers=st.tuples(sizes, sizes), seed=seeds)
def test_sample_commutes_for_distinct_items(numbers, seed):
    whole = items(sum(numbers), seed)
    hashes = np.random.default_rng(seed).permutation(len(whole.hashes)).astype(np.uint64)
    whole = Batch(hashes, whole.measures, whole.labels, whole.features)
    at = np.arange(len(hashes))
    a, b = (FeatureSample.of(part(whole, chosen), size=7) for chosen in (at[: numbers[0]], at[numbers[0] :]))
    assert_same(a.merge(b), b.merge(a), exactly=True)


@pytest.mark.parametrize("name", STATES)
@laws
@given(size=st.integers(1, 24), seed=seeds, cuts=st.lists(st.integers(0, 24), max_size=4), order=st.randoms())
def test_batches_and_shards_do_not_show(name, size, seed, cuts, order, budget):
    empty, of = STATES[name]
    whole = items(size, seed)
    edges = sorted({0, size, *(min(cut, size) for cut in cuts)})
    batches = [part(whole, np.arange(*edge)) for edge in pairwise(edges)]
    streamed = reduce(lambda state, batch: state.update(batch), batches, empty())
    assert_same(streamed, of(whole))
    shards = [of(batch) for batch in batches]
    if name != "feature sample":
        order.shuffle(shards)
    assert_same(reduce(lambda one, two: one.merge(two), shards, empty()), of(whole))


@pytest.mark.parametrize("name", STATES)
def test_merge_leaves_its_operands_alone(name):
    a, b = (STATES[name][1](items(6, seed)) for seed in (1, 2))
    before = {key: value.copy() for key, value in a.arrays().items()}
    a.merge(b)
    for key, value in a.arrays().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", STATES)
def test_size_does_not_grow(name):
    empty, _ = STATES[name]

    def size(batches):
        state = empty()
        for seed in range(batches):
            state = state.update(items(20, seed))
        return sum(value.nbytes for value in state.arrays().values())

    assert size(40) == size(4)


def test_summed_scatters_give_the_same_nc1_for_equal_classes(monkeypatch):
    batch = items(24, 3)
    batch = Batch(batch.hashes, batch.measures, np.arange(24) % 4, batch.features)
    one_a_class = ClassMoments.of(batch)
    monkeypatch.setattr(class_moments, "COVARIANCE_BYTES", 0)
    summed = ClassMoments.of(batch)
    assert summed.pooled
    assert not one_a_class.pooled
    assert summed.scatters
    for feature in summed.scatters:
        found, wanted = (nc1(state.means[feature], state.within(feature)) for state in (summed, one_a_class))
        assert found == pytest.approx(wanted, rel=1e-12)


def test_bootstrap_spread_is_that_of_the_mean():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(1, 400))
    hashes = generator.integers(0, 2**63, size=400).astype(np.uint64)
    means = ImageMeans.of(Batch(hashes, {"m": values})).compute()["m"]
    assert means[0, 0] == pytest.approx(values.mean())
    assert means[1:, 0].std() == pytest.approx(values.std() / 20, rel=0.25)
