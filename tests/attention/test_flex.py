"""The window and the blocks through `flex_attention`: the same oracles, on the CPU, with its uncompiled form.

That form is PyTorch's own definition of what its kernels compute. It refuses gradients on a CPU, for which it has no
compiled kernel; with the refusal taken away it has them.
"""

import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.attention.flex_attention as pytorchs
from attention_cases import CASES, DIM, build, oracle, tokens

from deadweight.attention import flex
from deadweight.attention.sliding_window import LONG, in_pieces

pytestmark = pytest.mark.slow

MASKED = [name for name, (mechanism, _) in CASES.items() if mechanism in ("sliding_window", "block_sparse")]


def uncompiled(*given, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is not compiled
        return pytorchs.flex_attention(*given, **more)


@pytest.fixture
def taken(monkeypatch):
    """Wherever the shapes allow."""
    monkeypatch.setattr(pytorchs, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex, "compiled", lambda: uncompiled)
    monkeypatch.setattr(flex, "fits", lambda q, k: q.shape[2] == k.shape[2])


def gone_through(case, length):
    name, options = CASES[case]
    return name == "block_sparse" or length > options["window"]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("length", [7, 130])
@pytest.mark.parametrize("case", MASKED)
def test_output_and_every_gradient_equal_the_oracle(taken, case, length, causal):
    m, x = build(case, causal=causal), tokens(length, batch=2).requires_grad_()
    seed = torch.randn(2, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = [x, *m.parameters()]
    expected, got = oracle(case, m, x), m(x)
    assert (m.kernel == "flex") == gone_through(case, length)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    wanted, found = (
        torch.autograd.grad(y, leaves, seed, allow_unused=True, materialize_grads=True) for y in (expected, got)
    )
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", MASKED)
def test_decoding_goes_on_without_it_and_stays_the_same(taken, case):
    m, x = build(case), tokens(130)
    first, cache = m(x[:, :100], m.new_cache(2))
    rest, _ = m(x[:, 100:], cache)
    assert m.kernel != "flex" or case == "window_1"  # which keeps nothing: queries and keys are the same tokens
    torch.testing.assert_close(torch.cat([first, rest], 1), m(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", MASKED)
def test_it_multiplies_what_is_needed(taken, case):
    m = build(case)
    m(tokens(130))
    macs = m.macs(2, 130)
    assert m.kernel == "flex"
    assert macs.executed == macs.necessary


def pair(**changes):
    q = {"device": torch.device("cuda"), "dtype": torch.bfloat16, "shape": (1, 2, 512, 64), "requires_grad": True}
    q |= changes
    return SimpleNamespace(**q), SimpleNamespace(shape=(1, 2, 512, 64))


UNFIT = {
    "a CPU": {"device": torch.device("cpu")},
    "32 bits": {"dtype": torch.float32},
    "no gradient": {"requires_grad": False},
    "more keys than queries": {"shape": (1, 2, 500, 64)},
    "an odd width": {"shape": (1, 2, 512, 48)},
}


@pytest.mark.parametrize("changes", UNFIT.values(), ids=UNFIT)
def test_it_is_taken_for_training_in_16_bits_on_a_gpu_alone(monkeypatch, changes):
    monkeypatch.setattr(flex, "works", lambda device, dtype, width: True)
    assert flex.fits(*pair())
    assert not flex.fits(*pair(**changes))
    with torch.no_grad():
        assert not flex.fits(*pair())
    monkeypatch.setattr(flex, "works", lambda device, dtype, width: False)
    assert not flex.fits(*pair())


def tried(monkeypatch, attention, capability=(9, 0)):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(pytorchs, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex, "compiled", lambda: attention)
    flex.works.cache_clear()
    try:
        return flex.works(torch.device("cpu"), torch.bfloat16, 16)
    finally:
        flex.works.cache_clear()


def test_it_proves_itself_on_a_small_problem(monkeypatch):
    pytest.importorskip("triton")
    assert tried(monkeypatch, uncompiled)
    assert not tried(monkeypatch, uncompiled, capability=(7, 5))


def test_a_kernel_that_fails_or_is_wrong_is_not_used_and_a_warning_says_why(monkeypatch):
    pytest.importorskip("triton")

    def fails(*given, **more):
        raise FileNotFoundError("no C compiler\nwas found")

    with pytest.warns(RuntimeWarning, match="not used on cpu in torch.bfloat16: FileNotFoundError: no C compiler$"):
        assert not tried(monkeypatch, fails)
    with pytest.warns(RuntimeWarning, match="off on a small problem"):
        assert not tried(monkeypatch, lambda q, k, v, block_mask: uncompiled(q, k, v))  # sees everything

    def too_large(*given, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        tried(monkeypatch, too_large)


def test_a_mask_is_one_function_and_its_blocks_are_found_once():
    assert flex.band(5, True) is flex.band(5, True)
    assert flex.blocks(8, 2, 3, False) is flex.blocks(8, 2, 3, False)
    assert flex.band(5, True) is not flex.band(5, False)
    assert flex.block_mask(flex.band(5, True), 300, "cpu") is flex.block_mask(flex.band(5, True), 300, "cpu")


@torch.no_grad()
def test_more_masks_than_pytorch_keeps_by_itself_stay_compiled(monkeypatch):
    """After eight it would go on uncompiled, with all scores in memory."""
    built = []

    def backend(graph, inputs):
        built.append(graph)
        return graph.forward

    torch._dynamo.reset()
    counted = torch.compile(pytorchs.flex_attention, backend=backend, dynamic=False)
    monkeypatch.setattr(flex, "compiled", lambda: counted)
    q = torch.randn(1, 1, 256, 16, generator=torch.Generator().manual_seed(0))
    for window in range(1, 13):
        flex.flex_attention(q, q, q, flex.band(window, True))
    torch._dynamo.reset()
    assert len(built) == 12


def test_the_pieces_of_a_processors_cache_are_for_processors():
    assert in_pieces(LONG, torch.device("cpu"))
    assert not in_pieces(LONG, torch.device("cuda"))
    assert not in_pieces(LONG - 1, torch.device("cpu"))
