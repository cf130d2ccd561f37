"""swap_attention on our GPT-2 and on timm's ViTs."""

import warnings

import pytest
import timm
import torch
import transformers

from deadweight.errors import InputError, SurgeryError
from deadweight.loading import load, save
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.surgery import FreshWeights, drop_blocks, group_mlps, shallow_mlps, surgeries, swap_attention

TOKENS = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(0))


def gpt2():
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocabulary=40, length=16, width=32, depth=3, heads=4)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def vit(zoo):
    return zoo.fresh("timm_vit")


@torch.no_grad()
def test_exact_mechanisms_keep_gpt2s_outputs():
    model = gpt2()
    for name, options in (("eager", {}), ("sdpa", {}), ("gqa", {"groups": 4}), ("sliding_window", {"window": 16})):
        swapped = swap_attention(model, name, **options)
        torch.testing.assert_close(swapped(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)
    assert surgeries(model) == []


@torch.no_grad()
def test_exact_mechanisms_keep_a_vits_outputs(zoo):
    model = vit(zoo)
    for name in ("eager", "sdpa"):
        swapped = swap_attention(model, name)
        torch.testing.assert_close(zoo.run(swapped), zoo.run(model), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_small_window_and_linear_attention_differ_but_share_weights():
    model = gpt2()
    for name, options in (("sliding_window", {"window": 2}), ("linear", {})):
        swapped = swap_attention(model, name, **options)
        assert not torch.allclose(swapped(TOKENS), model(TOKENS), atol=1e-3)
        weight = model.blocks[1].attention.qkv.weight
        own = swapped.blocks[1].attention
        assert torch.equal(torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]), weight)


@torch.no_grad()
def test_keys_and_values_are_pooled_over_neighbouring_heads():
    model = gpt2()
    swapped = swap_attention(model, "gqa", groups=2)
    keys = model.blocks[0].attention.qkv.weight[32:64].view(4, 8, 32)
    expected = torch.stack([(keys[0] + keys[1]) / 2, (keys[2] + keys[3]) / 2]).reshape(16, 32)
    torch.testing.assert_close(swapped.blocks[0].attention.k_proj.weight, expected)
    # heads that are equal to begin with lose nothing, and pooled heads can be spread out again
    back = swap_attention(swapped, "eager")
    torch.testing.assert_close(back(TOKENS), swapped(TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lsh", "mla", "gated_delta", "retention", "differential"])
def test_fresh_weights_are_said_to_be(name):
    with pytest.warns(FreshWeights, match=name):
        swapped = swap_attention(gpt2(), name)
    assert swapped(TOKENS).shape == (2, 12, 40)


def test_a_swapped_model_is_saved_and_loaded(tmp_path):
    with pytest.warns(FreshWeights):
        model = swap_attention(shallow_mlps(drop_blocks(group_mlps(gpt2()), [2])), "mla")
    save(model, tmp_path / "it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(f"file:{tmp_path / 'it'}")
    assert torch.equal(again(TOKENS), model(TOKENS))
    assert again.head.weight is again.tokens.weight
    assert (again.config.depth, again.config.hidden) == (2, 64)
    assert again.blocks[0].mlp is again.blocks[1].mlp


def test_hosts_that_are_refused(zoo):
    with pytest.raises(SurgeryError, match="causal"):
        swap_attention(vit(zoo), "mla")
    with pytest.raises(SurgeryError, match="projections of its own"):
        swap_attention(zoo.fresh("llama"), "lsh")
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=50))
    with pytest.raises(SurgeryError, match="computes its attention itself"):
        swap_attention(bloom, "sliding_window")
    with pytest.raises(SurgeryError, match="torchvision"):
        swap_attention(zoo.fresh("torchvision"), "linear")
    normed = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, qk_norm=True
    )
    with pytest.raises(SurgeryError, match="block 0"):
        swap_attention(normed, "sdpa")
    with pytest.raises(SurgeryError, match="block 0"):  # it adds relative positions to the scores
        swap_attention(zoo.fresh("timm_beit"), "sdpa")
    with pytest.raises(InputError, match="flsah"):
        swap_attention(gpt2(), "flsah")
    with pytest.raises(InputError, match="window"):
        swap_attention(gpt2(), "eager", window=3)
