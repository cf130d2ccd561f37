"""What really ran, what it multiplied, and the refusals."""

import pytest
import torch
from attention_cases import CASES, DIM, HEADS, build, oracle, tokens
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deadweight.attention import linear_chunks, mechanism, oracles, pool_heads
from deadweight.attention.banded import BandedAttention
from deadweight.attention.blocked import TOGETHER, BlockedAttention
from deadweight.attention.gated_delta import unit_lower_inverse
from deadweight.attention.linear_chunks import feature_map, running
from deadweight.attention.lsh import hash_buckets, lsh_attention
from deadweight.attention.lsh_blocks import sort_into_buckets
from deadweight.attention.mla import PART, absorbed_attention, expanded_attention, rows_of_sums, rows_on_columns
from deadweight.attention.rotary import turns
from deadweight.errors import InputError, MachineError
from deadweight.meters import count

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("length", [1, 7, 65, 200])
@pytest.mark.parametrize("case", CASES)
def test_executed_macs_equal_an_independent_count(case, length):
    m, x = build(case, torch.float32), tokens(length).float()
    m(x)
    counted = count(m, x)
    macs = m.macs(2, length)
    assert macs.executed == counted.executed
    assert macs.necessary <= macs.executed


NOT_BY_MASK = ("linear", "lsh", "block_sparse", "gated_delta", "retention")


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][0] not in NOT_BY_MASK])
def test_necessary_macs_are_the_pairs_the_mask_leaves(case):
    name, options = CASES[case]
    length, window = 70, options.get("window", 70)
    pairs = sum(1 for t in range(length) for s in range(t + 1) if t - s < window)
    keys = DIM // HEADS + options.get("rope_dim", 32) if name == "mla" else DIM // HEADS
    assert build(case).macs(3, length).necessary == 3 * HEADS * pairs * (keys + DIM // HEADS)


@pytest.mark.parametrize("causal", [True, False])
def test_block_sparse_needs_the_pairs_of_its_pattern(causal):
    length, (block, local, stride) = 70, (8, 2, 3)
    pairs = sum(
        1
        for t in range(length)
        for s in range(t + 1 if causal else length)
        if abs(t // block - s // block) < local or s // block % stride == stride - 1
    )
    assert build("block_sparse", causal=causal).macs(3, length).necessary == 3 * HEADS * pairs * 2 * DIM // HEADS


@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_the_inverse_by_halves_is_the_inverse(size):
    below = torch.randn(3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril(-1) / 4
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(unit_lower_inverse(below) @ (eye + below), eye.expand(3, -1, -1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["eager", "window_5", "linear", "lsh"])
def test_pytorchs_own_counter_agrees_where_no_fused_kernel_hides_the_products(case):
    m, x = build(case, torch.float32), tokens(200).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        m(x)
    linear = sum(p.numel() for name, p in m.named_parameters() if "weight" in name) * 2 * 200
    assert counter.get_total_flops() == 2 * (m.macs(2, 200).executed + linear)


def test_two_sided_attention_multiplies_the_whole_square():
    for name in ("eager", "sdpa", "flash"):
        m = mechanism(name, DIM, HEADS, causal=False)
        assert m.macs(1, 10) == (2 * 100 * DIM, 2 * 100 * DIM)


KERNELS = {
    "eager": "eager", "sdpa": "sdpa:flash", "flash": "sdpa:flash", "gqa": "sdpa:flash", "mqa": "sdpa:flash",
    "window_5": "banded", "linear": "chunked", "lsh": "sorted buckets", "mla": "sdpa:flash",
    "block_sparse": "blocks, sdpa:flash",
    "differential": "sdpa:flash", "gated_delta": "chunked", "retention": "chunked",
}  # fmt: skip


@pytest.mark.parametrize("case", KERNELS)
def test_the_kernel_that_ran_is_recorded(case):
    m = build(case, torch.float32)
    assert m.kernel == "not run yet"
    m(tokens(130).float())
    assert m.kernel == KERNELS[case]


def test_a_pinned_slower_kernel_is_recorded_and_counted_as_what_it_is():
    m, x = build("sdpa", torch.float32), tokens(20).float()
    with sdpa_kernel(SDPBackend.MATH):
        m(x)
    assert m.kernel == "sdpa:math"
    assert m.macs(1, 20).executed == 2 * 20 * 20 * DIM


def test_window_longer_than_the_text_takes_the_fused_kernel():
    m = build("window_100", torch.float32)
    m(tokens(100).float())
    assert m.kernel == "sdpa:flash"
    m(tokens(101).float())
    assert m.kernel == "banded"


def test_decoding_with_latents_is_absorbed_and_equals_the_expanded_form():
    draw = torch.Generator().manual_seed(0)
    q, q_rope, latent, k_rope, up = (
        torch.randn(*shape, dtype=torch.float64, generator=draw)
        for shape in ((2, 3, 33, 8), (2, 3, 33, 4), (2, 33, 10), (2, 33, 4), (3, 16, 10))
    )
    expanded, _ = expanded_attention(q, q_rope, latent, k_rope, up)
    torch.testing.assert_close(absorbed_attention(q, q_rope, latent, k_rope, up), expanded, rtol=1e-10, atol=1e-10)
    m = build("mla")
    _, cache = m(tokens(9), cache=m.new_cache(2))
    m(tokens(1), cache=cache)
    assert m.kernel == "absorbed"


@pytest.mark.parametrize("many", [1, PART - 1, PART, 2 * PART + 3])
def test_products_in_parts_are_the_products(many):
    draw = torch.Generator().manual_seed(0)
    few, room = (torch.randn(2, n, 5, dtype=torch.float64, generator=draw) for n in (3, many + 7))
    latents = room[:, :many]  # as a cache lies in its room
    scores = rows_on_columns(few, latents)
    torch.testing.assert_close(scores, few @ latents.mT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows_of_sums(scores, latents), scores @ latents, rtol=1e-12, atol=1e-9)


def test_flash_is_never_silently_something_else(monkeypatch):
    m = mechanism("flash", DIM, HEADS)

    def no_flash(*args, **kwargs):
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", no_flash)
    with pytest.raises(MachineError, match="no flash attention kernel"):
        m(tokens(5).float())


def test_flash_refuses_where_the_kernel_that_ran_is_another(monkeypatch):
    m = mechanism("flash", DIM, HEADS)
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *args, **kwargs: int(SDPBackend.MATH))
    with pytest.raises(MachineError, match="no flash attention kernel"):
        m(tokens(5).float())


def test_pytorch_really_refuses_what_flash_cannot_do():
    """The words our translation waits for, from PyTorch itself: values of another width have no flash kernel here."""
    q, v = torch.randn(1, 1, 8, 4), torch.randn(1, 1, 8, 6)
    with (
        pytest.warns(UserWarning, match="Flash"),
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        pytest.raises(RuntimeError, match="No available kernel"),
    ):
        torch.nn.functional.scaled_dot_product_attention(q, q, v)


@pytest.mark.parametrize("back", [False, True], ids=["before", "after"])
def test_running_sums_equal_cumsum_and_move_the_total_on(back):
    x = torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = torch.ones(2, 3, dtype=torch.float64)
    turned = x.flip(1) if back else x
    expected = turned.cumsum(1) - turned + 1
    torch.testing.assert_close(running(x, total, back=back), expected.flip(1) if back else expected)
    torch.testing.assert_close(total, x.sum(1) + 1)


def test_the_feature_map_is_elu_plus_one():
    x = torch.linspace(-30, 30, 301, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.elu(x) + 1
    torch.testing.assert_close(feature_map(x), expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (feature_map(x), expected)))


def test_a_linear_attention_state_that_underflows_gives_zero_not_nan():
    m = mechanism("linear", 4, 1)
    with torch.no_grad():
        m.k_proj.weight.zero_()
        m.k_proj.bias.fill_(-200.0)
        m.o_proj.weight.copy_(torch.eye(4))
        m.o_proj.bias.zero_()
    assert torch.equal(m(torch.ones(1, 3, 4)), torch.zeros(1, 3, 4))


def test_hash_ids_are_the_argmax_over_both_signs_in_float32():
    q = torch.randn(1, 2, 50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rotations = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))
    ids = hash_buckets(q, rotations)
    assert ids.shape == (1, 2, 3, 50)
    assert not ids.requires_grad
    for h, r, t in [(0, 0, 0), (1, 2, 49), (0, 1, 17)]:
        row, turns = q[0, h, t].tolist(), rotations[r].tolist()
        turned = [sum(row[d] * turns[d][k] for d in range(8)) for k in range(5)]
        both = turned + [-value for value in turned]
        assert int(ids[0, h, r, t]) == both.index(max(both))


def test_near_queries_share_a_bucket_more_often_than_far_ones():
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(1, 1, 500, 16, generator=draw)
    rotations = torch.randn(8, 16, 8, generator=draw)
    same = [
        (hash_buckets(q, rotations) == hash_buckets(q + size * torch.randn(q.shape, generator=draw), rotations))
        .float().mean()
        for size in (0.1, 0.5, 3.0)
    ]  # fmt: skip
    assert same[0] > 0.8 > same[1] > same[2]


def test_a_token_alone_in_its_buckets_returns_its_own_value_with_its_own_gradient():
    q = torch.randn(1, 1, 6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    v = torch.randn(1, 1, 6, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    buckets = torch.arange(6).expand(1, 1, 2, 6)
    y = lsh_attention(q, v, buckets, 3)
    assert torch.equal(y, v)
    grads = torch.autograd.grad(y.sum(), [q, v])
    assert torch.equal(grads[0], torch.zeros_like(q))
    assert torch.equal(grads[1], torch.ones_like(v))


@pytest.mark.parametrize("size", [1.0, 3e3], ids=["as they are", "too large to exponentiate"])
@pytest.mark.parametrize("length", [1, 5, 64, 65, 300])
def test_hashed_attention_by_rounds_equals_the_oracle_whatever_the_size_of_the_queries(size, length):
    draw = torch.Generator().manual_seed(length)
    q, v = (torch.randn(2, 2, length, 8, dtype=torch.float64, generator=draw) for _ in range(2))
    q = (q * size).requires_grad_()
    v.requires_grad_()
    buckets = torch.randint(3, (2, 2, 3, length), generator=draw)
    found, wanted = lsh_attention(q, v, buckets, 20), oracles.bucket_attention(q, v, buckets, 20)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    grads = [torch.autograd.grad(y.pow(2).sum(), [q, v]) for y in (found, wanted)]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_places_stay_exact_where_float32_would_not_hold_them():
    buckets = torch.randint(32_766, (1, 1, 2, 400), generator=torch.Generator().manual_seed(0))
    assert sort_into_buckets(buckets, 50).places.dtype == torch.float32
    assert sort_into_buckets(buckets, 400).places.dtype == torch.float64


def test_weights_move_between_the_mechanisms_that_share_their_names():
    source, x = build("eager"), tokens(20)
    for case in ("sdpa", "flash", "window_100", "linear"):
        target = build(case)
        target.load_state_dict(source.state_dict())
        if case != "linear":
            torch.testing.assert_close(target(x), source(x))


def test_pooled_heads_are_means_of_neighbours_and_change_nothing_where_they_were_equal():
    assert pool_heads(torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]), 4, 2).tolist() == [2, 3, 20, 30]
    source, target, x = build("sdpa"), build("gqa"), tokens(20)
    state = source.state_dict()
    for part in ("k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            pooled = pool_heads(state[f"{part}.{kind}"], HEADS, 2)
            twice = pooled.unflatten(0, (2, DIM // HEADS)).repeat_interleave(2, 0).flatten(0, 1)
            state[f"{part}.{kind}"] = twice
    source.load_state_dict(state)
    pooled = {n: pool_heads(w, HEADS, 2) if n.startswith(("k_", "v_")) else w for n, w in state.items()}
    target.load_state_dict(pooled)
    torch.testing.assert_close(target(x), source(x))


BAD = {
    "heads": (("sdpa", 64, 5), {}, "heads 5 do not divide dim 64"),
    "no heads": (("sdpa", 64, 0), {}, "heads 0"),
    "groups": (("gqa", 64, 4), {"groups": 3}, "groups 3 do not divide heads 4"),
    "window": (("sliding_window", 64, 4), {"window": 0}, "window 0"),
    "odd head under rope": (("sdpa", 15, 5), {"rope": 1e4}, "rotary dimension"),
    "odd rope_dim": (("mla", 64, 4), {"rope_dim": 3}, "rope_dim"),
    "rope": (("sdpa", 64, 4), {"rope": 0.5}, "rope 0.5"),
    "chunk": (("linear", 64, 4), {"chunk": 0}, "chunk 0"),
    "retention's chunk": (("retention", 64, 4), {"chunk": 0}, "chunk 0"),
    "delta's chunk": (("gated_delta", 64, 4), {"chunk": 24}, "power of two"),
    "odd halves": (("differential", 15, 5), {}, "width 3"),
    "odd quarters under rope": (("differential", 24, 4), {"rope": 1e4}, "half a head's width"),
    "start": (("differential", 64, 4), {"start": 1.0}, "start 1.0"),
    "stride": (("block_sparse", 64, 4), {"stride": 0}, "stride 0"),
    "two-sided retention": (("retention", 64, 4), {"causal": False}, "causal"),
    "two-sided delta": (("gated_delta", 64, 4), {"causal": False}, "causal"),
    "buckets": (("lsh", 64, 4), {"buckets": 7}, "buckets 7"),
    "rounds": (("lsh", 64, 4), {"rounds": 0}, "rounds 0"),
    "rank": (("mla", 64, 4), {"kv_rank": 0}, "kv_rank 0"),
    "unknown name": (("sliding", 64, 4), {}, "sliding_window"),
    "unknown option": (("sliding_window", 64, 4), {"widow": 3}, "window"),
    "two-sided lsh": (("lsh", 64, 4), {"causal": False}, "causal"),
    "two-sided mla": (("mla", 64, 4), {"causal": False}, "causal"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_by_name(case):
    arguments, options, told = BAD[case]
    with pytest.raises(InputError, match=told):
        mechanism(*arguments, **options)


def test_bad_inputs_are_refused():
    m = build("sdpa")
    with pytest.raises(InputError, match="shape"):
        m(torch.zeros(2, 5, DIM + 1, dtype=torch.float64))
    with pytest.raises(InputError, match="at least one token"):
        m(torch.zeros(2, 0, DIM, dtype=torch.float64))
    with pytest.raises(InputError, match="sequences"):
        m(tokens(5), cache=m.new_cache(3))
    two_sided = mechanism("sdpa", DIM, HEADS, causal=False)
    with pytest.raises(InputError, match="not causal"):
        two_sided(tokens(5).float(), cache=two_sided.new_cache(2))


LONG = {
    "sliding_window": ("sliding_window", {"window": 50}),
    "linear": ("linear", {}),
    "mla": ("mla", {"rope_dim": 4}),
}


@pytest.mark.parametrize("case", LONG)
def test_long_sequences_equal_the_oracle_and_are_counted(case):
    """Beyond the lengths of the other tests the work goes piece by piece, and backward by hand."""
    name, options = LONG[case]
    CASES[f"long_{case}"] = (name, options)
    try:
        m, x = build(f"long_{case}"), tokens(1100, batch=1).requires_grad_()
        leaves = [x, *m.parameters()]
        expected, got = oracle(f"long_{case}", m, x), m(x)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
        found, wanted = (torch.autograd.grad(y.pow(2).sum(), leaves) for y in (got, expected))
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-8)
    finally:
        del CASES[f"long_{case}"]
    assert m.macs(1, 1100).executed == count(m, x.detach()).executed
    assert m.kernel == {"sliding_window": "banded", "linear": "chunked", "mla": "blocked"}[case]


@pytest.mark.parametrize("length", [5, 300], ids=["one block", "three blocks"])
@pytest.mark.parametrize("heads", [2, TOGETHER + 1])
def test_latent_attention_by_blocks_of_queries_and_some_heads_at_a_time(heads, length):
    draw = torch.Generator().manual_seed(0)
    q, kv, k_rope = (
        torch.randn(2, length, *shape, dtype=torch.float64, generator=draw).requires_grad_()
        for shape in ((heads, 12), (heads, 16), (4,))
    )
    cos, sin = turns(0, length, 4, 100.0, q)
    found = BlockedAttention.apply(q, kv, k_rope, cos, sin)
    turned = torch.cat([q[..., :8], oracles.rotary(q[..., 8:].transpose(1, 2), 0, 100.0).transpose(1, 2)], 3)
    keys = torch.cat([kv[..., :8], k_rope.unsqueeze(2).expand(-1, -1, heads, -1)], 3)
    wanted = oracles.softmax_attention(*(x.transpose(1, 2) for x in (turned, keys, kv[..., 8:]))).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    grads = [torch.autograd.grad(y.pow(2).sum(), [q, kv, k_rope]) for y in (found, wanted)]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("piece", [1, 2, 64])
@pytest.mark.parametrize(
    ("queries", "keys", "window", "block"), [(200, 200, 50, 64), (100, 130, 31, 32), (90, 90, 200, 64), (65, 65, 1, 16)]
)
def test_the_band_by_pieces_equals_the_band_in_one(queries, keys, window, block, piece):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 2, n, 8, dtype=torch.float64, generator=draw).requires_grad_() for n in (queries, keys, keys)
    )
    found = BandedAttention.apply(q, k, v, window, block, piece)
    distance = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
    mask = (distance >= 0) & (distance < window)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    grads = [torch.autograd.grad(y.pow(2).sum(), [q, k, v]) for y in (found, wanted)]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [7, 130])
@pytest.mark.parametrize(
    ("case", "most"), [("linear", 1), ("linear", 256), ("linear_chunk_7", 8), ("linear_chunk_1", 256)]
)
def test_linear_attention_is_the_same_with_all_heads_at_once_as_on_a_gpu(monkeypatch, case, length, most):
    monkeypatch.setattr(linear_chunks, "in_pieces", lambda device: False)
    monkeypatch.setattr(linear_chunks, "MOST", most)
    m, x = build(case), tokens(length, batch=3).requires_grad_()
    leaves = [x, *m.parameters()]
    expected, got = oracle(case, m, x), m(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    found, wanted = (torch.autograd.grad(y.pow(2).sum(), leaves) for y in (got, expected))
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-8)
    first, cache = m(x[:, :5], m.new_cache(3))
    rest, _ = m(x[:, 5:], cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), expected, rtol=1e-9, atol=1e-9)
    assert m.macs(3, length).executed == count(m, x.detach()).executed


def test_on_a_gpu_one_product_takes_all_heads(monkeypatch):
    """Calls are what costs there: as many for sixteen sequences as for one."""
    calls = []
    real = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *given, **more: calls.append(1) or real(*given, **more))
    counted = {}
    for at_once in (False, True):
        monkeypatch.setattr(linear_chunks, "in_pieces", lambda device, pieces=not at_once: pieces)
        for batch in (1, 16):
            calls.clear()
            build("linear")(tokens(700, batch=batch))
            counted[at_once, batch] = len(calls)
    assert counted[True, 16] == counted[True, 1] < counted[False, 16]
