"""Families that keep their parts in other places: what is found is what their code runs."""

import pytest
import torch
import transformers as t

import deadweight as dw
from deadweight.anatomy.parts import MlpOfBlock, entrance

WORDS = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, **WORDS}
IDS = torch.arange(2, 18)[None]
FAMILIES = {
    # name: (configuration, position kind, path of the final norm, of the head, hidden units)
    "OPT": (
        lambda: t.OPTConfig(ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=32, **SIZE),
        "learned", "model.decoder.final_layer_norm", "lm_head", 64,
    ),
    "MPT": (
        lambda: t.MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=64),
        "relative", "transformer.norm_f", "lm_head", 128,
    ),
    "XGLM": (
        lambda: t.XGLMConfig(d_model=32, ffn_dim=64, num_layers=3, attention_heads=4, **WORDS),
        "sinusoidal", "model.layer_norm", "lm_head", 64,
    ),
    "BioGPT": (
        lambda: t.BioGptConfig(intermediate_size=64, **SIZE),
        "learned", "biogpt.layer_norm", "output_projection", 64,
    ),
    "BLOOM": (
        lambda: t.BloomConfig(hidden_size=32, n_layer=3, n_head=4, **WORDS),
        "relative", "transformer.ln_f", "lm_head", 128,
    ),
    "Falcon": (lambda: t.FalconConfig(**SIZE), "rotary", "transformer.ln_f", "lm_head", 128),
    "GPT-J": (
        lambda: t.GPTJConfig(n_embd=32, n_layer=3, n_head=4, rotary_dim=4, n_positions=64, **WORDS),
        "rotary", "transformer.ln_f", "lm_head", 128,
    ),
    "GPT-NeoX": (
        lambda: t.GPTNeoXConfig(intermediate_size=64, **SIZE), "rotary", "gpt_neox.final_layer_norm", "embed_out", 64,
    ),
}  # fmt: skip
WITHOUT_MODULE = ("OPT", "XGLM", "BioGPT")


def build(name):
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(FAMILIES[name][0]()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parts_are_those_that_run(name):
    _, positions, norm, head, hidden = FAMILIES[name]
    model = build(name)
    parts = dw.anatomy(model)
    assert (parts.position_kind, parts.norm_path, parts.depth) == (positions, norm, 3)
    assert parts.head is model.get_output_embeddings()
    assert parts.head_path in (head, "lm_head")
    assert (parts.positions is not None) is (positions == "learned")
    order = []
    watched = {"norm": parts.norm, "head": parts.head, **{f"attention {b.index}": b.attention for b in parts.blocks}}
    watched |= {f"mlp {b.index}": entrance(b.mlp) for b in parts.blocks}
    handles = [m.register_forward_hook(lambda *_, n=name: order.append(n)) for name, m in watched.items()]
    logits(model)
    for handle in handles:
        handle.remove()
    blocks = [f"{part} {index}" for index in range(3) for part in ("attention", "mlp")]
    assert sorted(order[:6]) == sorted(blocks)
    assert order[6:] == ["norm", "head"]
    assert {block.mlp_paths.hidden for block in parts.blocks} == {hidden}


@pytest.mark.parametrize("name", ["OPT", "BioGPT"])
def test_the_length_of_learned_positions_is_that_of_the_rows_in_use(name):
    model = build(name)
    found = dw.profile(model, [({"input_ids": IDS},)], probes=["pe_dominance"]).table()["pe_dominance"][0]
    table, first = dw.anatomy(model).positions, 2  # both keep two rows for themselves
    words = dw.anatomy(model).embedding(IDS)[0]
    expected = (
        table.weight.detach()[first : first + IDS.shape[1]].norm(dim=-1).mean() / words.detach().norm(dim=-1).mean()
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", WITHOUT_MODULE)
def test_an_mlp_without_a_module_is_narrowed(name, tmp_path):
    model = build(name)
    half = dw.shallow_mlps(model, 0.5)
    ends = {"fc1": "out_features", "fc2": "in_features"}
    assert all(
        getattr(getattr(b.module, layer), end) == 32 for b in dw.anatomy(half).blocks for layer, end in ends.items()
    )
    handles = [  # the same units, kept in the original
        b.module.fc2.register_forward_pre_hook(lambda _, args: (args[0] * (torch.arange(64) < 32),))
        for b in dw.anatomy(model).blocks
    ]
    expected = logits(model)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(logits(half), expected, rtol=1e-4, atol=1e-4)
    dw.save(half, tmp_path / "half")
    torch.testing.assert_close(logits(dw.load(f"file:{tmp_path / 'half'}").eval()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WITHOUT_MODULE)
def test_an_mlp_without_a_module_is_shared(name, tmp_path):
    model = build(name)
    shared = dw.group_mlps(model, 2)
    first, second, third = (block.module for block in dw.anatomy(shared).blocks)
    assert (first.fc1, first.fc2) == (second.fc1, second.fc2)
    assert third.fc1 is not first.fc1
    assert dw.count(shared, {"input_ids": IDS}).unique_mlps == 2
    by_hand = build(name)
    one, two, _ = (block.module for block in dw.anatomy(by_hand).blocks)
    two.fc1.load_state_dict(one.fc1.state_dict())
    two.fc2.load_state_dict(one.fc2.state_dict())
    torch.testing.assert_close(logits(shared), logits(by_hand))
    dw.save(shared, tmp_path / "shared")
    back = dw.load(f"file:{tmp_path / 'shared'}").eval()
    assert dw.anatomy(back).blocks[0].mlp is dw.anatomy(back).blocks[1].mlp
    torch.testing.assert_close(logits(back), logits(by_hand))


@pytest.mark.parametrize("name", WITHOUT_MODULE)
def test_an_mlp_without_a_module_computes_what_the_block_does(name):
    model, seen = build(name), {}
    block = dw.anatomy(model).blocks[1]
    assert isinstance(block.mlp, MlpOfBlock)
    entrance(block.mlp).register_forward_pre_hook(lambda _, args: seen.update(given=args[0]))
    block.module.fc2.register_forward_hook(lambda _, args, output: seen.update(written=output))
    logits(model)
    with torch.no_grad():
        torch.testing.assert_close(block.mlp(seen["given"]), seen["written"])
    assert not any("deadweight" in name for name in model.state_dict())
    refitted = dw.shallow_mlps(model, 0.5, refit="stream", batches=[{"input_ids": IDS}] * 4)
    cut = dw.shallow_mlps(model, 0.5)
    worse, better = ((logits(one) - logits(model)).square().mean() for one in (cut, refitted))
    assert better < worse
