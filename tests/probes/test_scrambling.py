"""Moments of the scrambling index: laws, and the quick solution against the plain one."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.probes import packed_symmetric, profile, scrambling_fit
from deadweight.probes.packed_symmetric import packed, unpacked
from deadweight.probes.scrambling_fit import fit_all, fit_self, r2_of
from deadweight.probes.states import scrambling_sums
from deadweight.probes.states.scrambling import MIXED, ScramblingMoments
from deadweight.probes.states.scrambling_sums import ScramblingSums

TOKENS, WIDTH, ROWS = 5, 4, 2
sizes = st.integers(0, 7)
seeds = st.integers(0, 10_000)
laws = settings(max_examples=25, deadline=None)


def images(count, seed, tokens=TOKENS, width=WIDTH):
    """(embeddings, tokens at each row, CLS at each row, folds) of random images, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    embeddings = draw(count, tokens, width) + 2
    rows = [embeddings @ draw(width, width) + draw(count, 1, width) + draw(count, tokens, width) for _ in range(ROWS)]
    fold = torch.rand(count, generator=generator).numpy() < 0.5
    return embeddings, rows, [draw(count, width) for _ in range(ROWS)], fold


def moments(items, *batches):
    """The moments of the images in `batches` (index arrays; all at once by default)."""
    embeddings, rows, cls, fold = items
    sums = ScramblingSums()
    for chosen in batches or [np.arange(len(fold))]:
        if len(chosen):
            sums.start(embeddings[chosen], fold[chosen])
            for row, tokens in enumerate(rows):
                mean = tokens[chosen].mean(1)
                sums.row(row, tokens[chosen] - mean[:, None], mean, cls[row][chosen])
            sums.finish()
    return sums.done()


def assert_same(one, two, exactly=False):
    left, right = one.arrays(), two.arrays()
    assert set(left) == set(right)
    for name in left:
        if exactly:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        else:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-9, atol=1e-9, err_msg=name)


@laws
@given(size=sizes, seed=seeds)
def test_identity(size, seed):
    state = moments(images(size, seed))
    assert_same(state.merge(ScramblingMoments()), state, exactly=True)
    assert_same(ScramblingMoments().merge(state), state, exactly=True)


@laws
@given(numbers=st.tuples(sizes, sizes, sizes), seed=seeds)
def test_associative_and_commutative(numbers, seed):
    a, b, c = (moments(images(number, seed + i)) for i, number in enumerate(numbers))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b), b.merge(a))


@laws
@given(size=st.integers(1, 20), seed=seeds, cuts=st.lists(st.integers(0, 20), max_size=4), order=st.randoms())
def test_batches_and_shards_do_not_show(size, seed, cuts, order):
    items, whole = images(size, seed), moments(images(size, seed))
    edges = sorted({0, size, *(min(cut, size) for cut in cuts)})
    batches = [np.arange(*edge) for edge in pairwise(edges)]
    assert_same(moments(items, *batches), whole)
    order.shuffle(batches)
    shards = [moments(items, batch) for batch in batches]
    assert_same(reduce(lambda one, two: one.merge(two), shards, ScramblingMoments()), whole)


def test_gathering_does_not_show(monkeypatch):
    items = images(24, 3)
    whole = moments(items)
    monkeypatch.setattr(scrambling_sums, "_GATHER", 5)
    monkeypatch.setattr(packed_symmetric, "_BAND", 3)
    assert_same(moments(items, *np.arange(24).reshape(6, 4)), whole)


def test_merge_leaves_its_operands_alone():
    a, b = moments(images(6, 1)), moments(images(6, 2))
    before = {name: value.copy() for name, value in a.arrays().items()}
    a.merge(b)
    for name, value in a.arrays().items():
        np.testing.assert_array_equal(value, before[name])


def test_back_from_arrays():
    state = moments(images(6, 1))
    assert_same(ScramblingMoments.from_arrays(state.arrays()), state, exactly=True)
    assert_same(ScramblingMoments.from_arrays({}), ScramblingMoments(), exactly=True)


def test_different_numbers_of_patches_are_told(zoo):
    mixed = moments(images(4, 0)).merge(moments(images(4, 1, tokens=6)))
    assert mixed.tokens == MIXED
    assert mixed.merge(moments(images(4, 0))).tokens == MIXED
    assert np.isnan(r2_of(mixed, 0).own)
    model = zoo.build("timm_dynamic")
    small, large = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 24, 24)
    found = profile(model, [small, large], probes=["isi", "raw_similarity"])
    assert found.table()["isi"].isna().all()
    assert found.table()["raw_similarity"].notna().all()
    assert "isi: images with different numbers of patches" in found.notes


@pytest.mark.parametrize("count", [6, 80], ids=["few images", "many images"])
def test_quick_solution_is_the_plain_one(count, monkeypatch):
    """Fewer images than dimensions are solved through their factor; the dense system of 3D unknowns says the same."""
    state = moments(images(count, 5, width=24))
    side = scrambling_fit._side(state, 0, 0)
    quick, error = fit_all(side), r2_of(state, 0)
    assert (side.factor is not None) == (count == 6)
    monkeypatch.setattr(scrambling_fit, "_factor", lambda *_: None)
    plain = fit_all(scrambling_fit._side(state, 0, 0))
    assert r2_of(state, 0).everything == pytest.approx(error.everything, rel=1e-9)
    np.testing.assert_allclose(quick.by_token, plain.by_token, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(quick.by_image, plain.by_image, rtol=1e-7, atol=1e-9)


def test_a_copy_of_its_own_embedding_is_read_perfectly():
    embeddings, _, cls, fold = images(30, 2)
    state = moments((embeddings, [embeddings, torch.zeros_like(embeddings)], cls, fold))
    assert r2_of(state, 0).own == pytest.approx(1, abs=1e-4)
    assert r2_of(state, 1).own == pytest.approx(0, abs=0.1)  # a constant tells nothing: the training fold's mean


def test_the_others_hold_what_a_shifted_token_lost():
    """Each token carries its neighbours' embeddings and not its own: all of ISI is with the others."""
    embeddings, _, cls, fold = images(300, 4)
    swapped = embeddings.sum(1, keepdim=True) - embeddings  # the sum of the others
    state = moments((embeddings, [swapped, swapped], cls, fold))
    found = r2_of(state, 0)
    assert found.own < 0.6
    assert found.everything == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("folds", [[True] * 6, [False] * 6], ids=["all in one", "all in the other"])
def test_one_fold_holds_nothing_out(folds):
    embeddings, rows, cls, _ = images(6, 0)
    state = moments((embeddings, rows, cls, np.array(folds)))
    assert np.isnan(r2_of(state, 0).own)


def test_constant_inputs_are_left_out():
    embeddings, rows, cls, fold = images(20, 1)
    cls = [torch.full_like(part, 1 / 3) for part in cls]
    state = moments((embeddings, rows, cls, fold))
    weights = fit_all(scrambling_fit._side(state, 0, 0)).by_image
    assert not weights[WIDTH:].any()
    assert np.isfinite(fit_self(scrambling_fit._side(state, 0, 0)).by_token).all()


def test_fewer_images_than_dimensions_are_noted(zoo):
    model, (x, _) = zoo.build("timm_cls"), zoo.images(400)
    few, many = (profile(model, [x[:count]], probes=["isi"]).notes for count in (40, 400))
    assert any("isi: the smaller fold has" in note and "for 48 dimensions" in note for note in few)
    assert not any("the smaller fold has" in note for note in many)


def test_triangles():
    full = np.arange(25.0).reshape(5, 5)
    full += full.T
    np.testing.assert_array_equal(unpacked(packed(full), 5), full)
