"""Every mechanism against its oracle, its own decoding, and the arrow of time."""

import pytest
import torch
from attention_cases import CASES, DIM, HEADS, LENGTHS, TWO_SIDED, build, oracle, tokens

from deadweight.attention import MECHANISMS, Mechanism, mechanism


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES)
def test_output_and_every_gradient_equal_the_oracle(case, length):
    m, x = build(case), tokens(length, batch=1).requires_grad_()
    seed = torch.randn(1, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = [x, *m.parameters()]
    expected = oracle(case, m, x)
    wanted = torch.autograd.grad(expected, leaves, seed, allow_unused=True, materialize_grads=True)
    got = m(x)
    found = torch.autograd.grad(got, leaves, seed, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for name, one, two in zip(["x", *dict(m.named_parameters())], found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("length", [7, 130])
@pytest.mark.parametrize("case", TWO_SIDED)
def test_without_the_causal_mask_it_equals_the_oracle_too(case, length):
    m, x = build(case, causal=False), tokens(length, batch=1)
    torch.testing.assert_close(m(x), oracle(case, m, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_a_change_at_a_token_leaves_every_output_before_it_as_it_was(case):
    m, x = build(case), tokens(130)
    before = m(x)
    for at in (1, 63, 64, 65, 128, 129):
        changed = x.clone()
        changed[:, at:] = tokens(130, seed=at)[:, at:] * 3
        after = m(changed)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=1e-12, atol=1e-12)
        assert (after[:, at] - before[:, at]).abs().max() > 1e-3  # or nothing was tested


@pytest.mark.parametrize("case", CASES)
def test_no_output_has_a_gradient_from_a_later_token(case):
    m, x = build(case), tokens(70).requires_grad_()
    (grad,) = torch.autograd.grad(m(x)[:, :40].pow(2).sum(), x)
    assert grad[:, 40:].abs().max() < 1e-12
    assert grad[:, :40].abs().min() > 0


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 6], [70, 1, 1, 30, 28], [130]], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_decoding_with_a_cache_equals_the_full_pass(case, cuts):
    m, x = build(case), tokens(sum(cuts))
    cache, parts, start = m.new_cache(2), [], 0
    assert cache.bytes == 2 * m.cache_bytes(0)
    for count in cuts:
        y, cache = m(x[:, start : start + count], cache=cache)
        parts.append(y)
        start += count
        assert cache.length == start
        assert cache.bytes == 2 * m.cache_bytes(start)
    torch.testing.assert_close(torch.cat(parts, 1), m(x), rtol=1e-9, atol=1e-9)


KEPT = {  # bytes of one sequence after 40 tokens, float64: 4 heads of 4, dim 16
    "eager": 2 * 40 * 16 * 8,
    "gqa": 2 * 40 * 2 * 4 * 8,
    "mqa": 2 * 40 * 4 * 8,
    "window_1": 0,
    "window_5": 2 * 4 * 16 * 8,
    "linear": 4 * (4 * 4 + 4) * 8,
    "lsh": 40 * (2 * 16 * 8 + 4 * 3 * 2),
    "mla": 40 * (8 + 32) * 8,
    "block_sparse": 2 * 40 * 16 * 8,
    "differential": 2 * 40 * 16 * 8,
    "gated_delta": 4 * 4 * 4 * 8,
    "retention": 4 * 4 * 4 * 8,
}


@pytest.mark.parametrize("case", KEPT)
def test_a_cache_holds_what_the_mechanism_must_remember_and_no_more(case):
    m = build(case)
    _, cache = m(tokens(40), cache=m.new_cache(2))
    assert cache.bytes == 2 * KEPT[case]


@pytest.mark.parametrize("case", CASES)
def test_a_cache_is_a_value_that_two_futures_can_share(case):
    m, x = build(case), tokens(12)
    _, shared = m(x[:, :10], cache=m.new_cache(2))
    first, _ = m(x[:, 10:11], cache=shared)
    m(x[:, 11:12] * 5, cache=shared)
    again, _ = m(x[:, 10:11], cache=shared)
    assert torch.equal(first, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_lower_precision_stays_near_float64(case, dtype):
    name, _ = CASES[case]
    if name == "lsh" and dtype is not torch.float32:
        x = tokens(130).to(dtype)  # other queries, so other buckets: only that it runs and is finite
        assert build(case, dtype)(x).isfinite().all()
        return
    exact, rough = build(case), build(case, dtype)
    x = tokens(130)
    error = (rough(x.to(dtype)).double() - exact(x)).abs().max() / exact(x).abs().max()
    assert error < {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]


@pytest.mark.parametrize("case", CASES)
def test_large_inputs_stay_finite_forward_and_backward(case):
    m, x = build(case, torch.float32), (tokens(70).float() * 300).requires_grad_()
    y = m(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_all_are_registered_under_the_names_the_papers_use():
    assert set(MECHANISMS.names()) == {
        "eager", "sdpa", "flash", "gqa", "mqa", "sliding_window", "linear", "lsh", "mla",
        "block_sparse", "differential", "gated_delta", "retention",
    }  # fmt: skip


@pytest.mark.parametrize("name", MECHANISMS.names())
def test_every_option_has_a_default_and_cache_bytes_follow_the_dtype(name):
    m = mechanism(name, 64, 4)
    assert isinstance(m, Mechanism)
    x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        _, cache = m.to(dtype)(x.to(dtype), cache=m.new_cache(2))
        assert cache.bytes == 2 * m.cache_bytes(9)


def test_the_same_seed_gives_the_same_rotations_and_another_seed_others():
    one, two, other = (mechanism("lsh", DIM, HEADS, seed=seed).rotations for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_gradients_flow_through_the_cache(case):
    m, x = build(case), tokens(40).requires_grad_()
    leaves = [x, *(weight for weight in m.parameters() if weight.requires_grad)]
    first, cache = m(x[:, :25], cache=m.new_cache(2))
    second, _ = m(x[:, 25:], cache=cache)
    seed = torch.randn(2, 40, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"allow_unused": True, "materialize_grads": True}
    found = torch.autograd.grad(torch.cat([first, second], 1), leaves, seed, **options)
    wanted = torch.autograd.grad(m(x), leaves, seed, **options)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_two_futures_of_a_grown_cache_do_not_disturb_each_other(case):
    m, x = build(case), tokens(30)
    _, cache = m(x[:, :10], cache=m.new_cache(2))
    _, cache = m(x[:, 10:11], cache=cache)  # from here on there may be room behind it
    straight = cache
    for at in range(11, 20):
        wanted, straight = m(x[:, at : at + 1], cache=straight)
    other = cache
    for _ in range(11, 20):
        _, other = m(-x[:, :1], cache=other)
    again = cache
    for at in range(11, 20):
        found, again = m(x[:, at : at + 1], cache=again)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, m(x[:, :20])[:, -1:], rtol=1e-9, atol=1e-9)
