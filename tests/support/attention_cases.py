"""The table of mechanisms every test of this folder runs through, and how an oracle is asked about each."""

import torch
import torch.nn.functional as F

from deadweight.attention import mechanism, oracles
from deadweight.attention.lsh import hash_buckets

DIM, HEADS = 16, 4
CASES = {
    "eager": ("eager", {}),
    "eager_rope": ("eager", {"rope": 10_000.0}),
    "sdpa": ("sdpa", {}),
    "sdpa_rope": ("sdpa", {"rope": 100.0}),
    "flash": ("flash", {}),
    "gqa": ("gqa", {"groups": 2}),
    "gqa_rope": ("gqa", {"groups": 2, "rope": 10_000.0}),
    "mqa": ("mqa", {}),
    "window_1": ("sliding_window", {"window": 1}),
    "window_5": ("sliding_window", {"window": 5}),
    "window_64": ("sliding_window", {"window": 64}),
    "window_65": ("sliding_window", {"window": 65, "rope": 10_000.0}),
    "window_100": ("sliding_window", {"window": 100}),
    "linear": ("linear", {}),
    "linear_chunk_1": ("linear", {"chunk": 1}),
    "linear_chunk_7": ("linear", {"chunk": 7, "rope": 10_000.0}),
    "lsh": ("lsh", {"buckets": 8, "rounds": 3, "window": 6}),
    "lsh_one_round": ("lsh", {"buckets": 4, "rounds": 1, "window": 100, "rope": 10_000.0}),
    "lsh_window_1": ("lsh", {"buckets": 16, "rounds": 2, "window": 1}),
    "lsh_window_70": ("lsh", {"buckets": 2, "rounds": 2, "window": 70}),
    "block_sparse": ("block_sparse", {"block": 8, "local": 2, "stride": 3}),
    "block_sparse_rope": ("block_sparse", {"block": 5, "local": 1, "stride": 2, "rope": 10_000.0}),
    "differential": ("differential", {}),
    "differential_rope": ("differential", {"start": 0.2, "rope": 10_000.0}),
    "gated_delta": ("gated_delta", {}),
    "gated_delta_chunk_4": ("gated_delta", {"chunk": 4, "rope": 10_000.0}),
    "retention": ("retention", {}),
    "retention_chunk_7": ("retention", {"chunk": 7, "rope": 10_000.0}),
    "mla": ("mla", {}),
    "mla_narrow": ("mla", {"kv_rank": 5, "q_rank": 3, "rope_dim": 6, "rope": 500.0}),
}
CAUSAL_ONLY = ("gated_delta", "lsh", "mla", "retention")
TWO_SIDED = {name: case for name, case in CASES.items() if case[0] not in CAUSAL_ONLY}
LENGTHS = (1, 7, 65, 130)


def build(case, dtype=torch.float64, **more):
    name, options = CASES[case]
    torch.manual_seed(3)
    made = mechanism(name, DIM, HEADS, **options, **more).to(dtype)
    with torch.no_grad():  # as initialised, scores are so small that every softmax is nearly flat
        for weight in made.parameters():
            weight.mul_(2.0)
    return made


def tokens(length, batch=2, seed=0):
    return torch.randn(batch, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def split(x, heads):
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).permute(0, 2, 1, 3)


def oracle(case, m, x):
    """The mechanism's output from its weights alone, by `oracles`."""
    name, options = CASES[case]
    weights = dict(m.named_parameters())

    def project(part, heads):
        return split(F.linear(x, weights[f"{part}.weight"], weights.get(f"{part}.bias")), heads)

    def turned(heads):
        return heads if options.get("rope") is None else oracles.rotary(heads, 0, options["rope"])

    if name == "mla":
        y = _latent(m, x, project, options.get("rope", 10_000.0))
    elif name == "lsh":
        q = turned(project("qk_proj", HEADS))
        y = oracles.bucket_attention(q, project("v_proj", HEADS), hash_buckets(q, m.rotations.float()), m.window)
    else:
        groups = {"gqa": 2, "mqa": 1}.get(name, HEADS)
        q, k, v = turned(project("q_proj", HEADS)), turned(project("k_proj", groups)), project("v_proj", groups)
        if name in BEYOND:
            y = BEYOND[name](m, x, q, k, v)
        elif name == "linear":
            y = oracles.linear_attention(q, k, v, causal=m.causal)
        else:
            y = oracles.softmax_attention(q, k, v, window=options.get("window"), causal=m.causal)
    merged = y.permute(0, 2, 1, 3).reshape(x.shape)
    return F.linear(merged, weights["o_proj.weight"], weights.get("o_proj.bias"))


def _sparse(m, x, q, k, v):
    return oracles.block_attention(q, k, v, m.block, m.local, m.stride, m.causal)


def _differential(m, x, q, k, v):
    if m.rope is not None:  # turns the halves, each for itself
        q, k = (split(F.linear(x, p.weight, p.bias), 2 * HEADS) for p in (m.q_proj, m.k_proj))
        q, k = (oracles.rotary(x, 0, m.rope) for x in (q, k))
        q, k = (torch.cat([x[:, 0::2], x[:, 1::2]], -1) for x in (q, k))
    q1, k1, q2, k2 = m.lambdas
    second = (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + m.start
    y = oracles.differential_attention(q, k, v, second, m.causal)
    return y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * m.norm.weight * (1 - m.start)


def _retention(m, x, q, k, v):
    y = oracles.retention(q, k, v)
    gate = F.linear(x, m.gate_proj.weight, m.gate_proj.bias)
    return y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * split(gate * gate.sigmoid(), HEADS)


def _delta(m, x, q, k, v):
    keep = (F.linear(x, m.keep_proj.weight) + m.keep_bias).sigmoid().permute(0, 2, 1)
    write = F.linear(x, m.write_proj.weight, m.write_proj.bias).sigmoid().permute(0, 2, 1)
    return oracles.delta_rule(q, k, v, keep, write)


BEYOND = {"block_sparse": _sparse, "differential": _differential, "gated_delta": _delta, "retention": _retention}


def _latent(m, x, project, base):
    def normed(z, scale):
        return z / (z.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * scale

    latent_q = normed(F.linear(x, m.q_down.weight), m.q_norm.weight)
    q = split(F.linear(latent_q, m.q_up.weight), HEADS)
    down = F.linear(x, m.kv_down.weight)
    latents, k_rope = down[..., : m.kv_rank], down[..., m.kv_rank :]
    width = DIM // HEADS
    return oracles.latent_attention(
        q[..., :width],
        oracles.rotary(q[..., width:], 0, base),
        normed(latents, m.kv_norm.weight),
        oracles.rotary(k_rope, 0, base),
        m.kv_up.weight.reshape(HEADS, 2 * width, m.kv_rank),
    )
