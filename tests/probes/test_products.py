"""The quick products are the plain ones, and what a layer keeps in shared memory is its own as long as it is used."""

import numpy as np
import pytest
import torch

from deadweight.probes import packed_symmetric, products
from deadweight.probes.layer import Layer
from deadweight.probes.packed_symmetric import UpperTriangles, packed, unpacked
from deadweight.probes.products import rows_product, scores
from deadweight.probes.scratch import Scratch


@pytest.fixture(autouse=True)
def two_threads():
    """On one thread torch does not give a convolution to oneDNN."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


SIZES = [(1, 1, 1), (3, 5, 2), (64, 300, 97), (384, 1799, 384)]


def close(found, left, right):
    """left @ rightᵀ to float32's rounding of a long sum: far below a bfloat16's of the result."""
    left, right = left.double(), right.double()
    terms = left.shape[-1]
    rounding = (4 + 2 * terms**0.5) * torch.finfo(torch.float32).eps * (left.abs() @ right.abs().mT)
    assert ((found.double() - left @ right.mT).abs() <= rounding).all()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("onednn", [True, False])
def test_rows_product(sizes, onednn, monkeypatch):
    monkeypatch.setattr(products, "_ONEDNN", onednn and products._ONEDNN)
    rows, terms, others = sizes
    left, right = torch.randn(rows, terms), torch.randn(others, terms)
    close(rows_product(left, right), left, right)
    wide = torch.randn(terms, rows + 3)[:, 3:]  # neither contiguous nor the other way round
    close(rows_product(wide.mT, right), wide.mT, right)


def test_rows_product_keeps_float64():
    left, right = torch.randn(7, 50, dtype=torch.float64), torch.randn(5, 50, dtype=torch.float64)
    torch.testing.assert_close(rows_product(left, right), left @ right.mT, rtol=1e-15, atol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 17, 5, 8), (3, 6, 70, 70, 64)], ids=str)
@pytest.mark.parametrize("onednn", [True, False])
def test_scores(shape, onednn, monkeypatch):
    monkeypatch.setattr(products, "_ONEDNN", onednn and products._ONEDNN)
    items, heads, tokens, keys, size = shape
    query = torch.randn(items, tokens, heads, size).transpose(1, 2)  # as models hand it over
    key = torch.randn(items, keys, heads, size).transpose(1, 2)
    close(scores(query, key).permute(1, 2, 0, 3), query, key)


@pytest.mark.parametrize("width", [1, 3, 64, 65, 300])
def test_triangles_under_way(width):
    rows = torch.randn(2, width, 40, dtype=torch.float64)
    sums = UpperTriangles(2, width)
    for which in (0, 1):
        sums.add(which, rows[which])
        sums.add(which, rows[1 - which], -0.5)
    square = rows @ rows.mT
    found = sums.packed()
    for which, exact in enumerate((square[0] - 0.5 * square[1], square[1] - 0.5 * square[0])):
        np.testing.assert_allclose(found[which], packed(exact.numpy()), rtol=0, atol=1e-12)
        np.testing.assert_allclose(unpacked(found[which], width), exact.numpy(), rtol=0, atol=1e-12)


def test_bands_of_one_row(monkeypatch):
    monkeypatch.setattr(packed_symmetric, "_BAND", 1)
    rows = torch.randn(6, 9, dtype=torch.float64)
    sums = UpperTriangles(1, 6)
    sums.add(0, rows)
    np.testing.assert_allclose(sums.packed()[0], packed((rows @ rows.mT).numpy()), rtol=0, atol=1e-13)


def test_scratch_gives_the_same_memory_again_and_grows():
    scratch, cpu = Scratch(), torch.device("cpu")
    first = scratch.empty("a", (2, 3), torch.float32, cpu).fill_(1)
    again = scratch.empty("a", (3, 2), torch.float32, cpu)
    assert again.data_ptr() == first.data_ptr()
    assert scratch.empty("b", (2, 3), torch.float32, cpu).data_ptr() != first.data_ptr()
    larger = scratch.empty("a", (4, 5), torch.float32, cpu).fill_(2)
    assert larger.shape == (4, 5)
    assert (first == 1).all()
    assert scratch.empty("a", (2,), torch.float64, cpu).dtype == torch.float64


def test_centred_tokens_stay_while_another_layer_has_a_scratch_of_its_own():
    scratch = [Scratch(), Scratch()]
    tokens = [torch.randn(2, 5, 3) for _ in range(3)]
    layers = [Layer(patches, scratch=scratch[i % 2]) for i, patches in enumerate(tokens)]
    expected = [patches - patches.mean(1, keepdim=True) for patches in tokens]
    found = [layers[i].centred for i in (0, 1)]
    for i in (0, 1):
        torch.testing.assert_close(found[i], expected[i], rtol=0, atol=0)
    assert layers[2].centred.data_ptr() == found[0].data_ptr()
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)


def test_float32_rows_through_several_bands():
    rows = torch.randn(300, 90)
    sums = UpperTriangles(1, 300)
    sums.add(0, rows)
    close(torch.from_numpy(unpacked(sums.packed()[0], 300)), rows, rows)
