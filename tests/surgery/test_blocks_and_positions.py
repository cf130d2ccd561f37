"""drop_blocks and scale_positions."""

import pytest
import timm
import torch
import transformers

from deadweight.anatomy import anatomy
from deadweight.anatomy.parts import stream
from deadweight.errors import InputError, SurgeryError
from deadweight.surgery import drop_blocks, scale_positions, surgeries


def silenced(model, dropped, zoo):
    """The same function computed the other way: dropped blocks hand on what they were given."""
    hooks = []

    def skip(module, args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        return given if isinstance(output, torch.Tensor) else (given, *output[1:])

    for block in anatomy(model).blocks:
        if block.index in dropped:
            hooks.append(block.module.register_forward_hook(skip, with_kwargs=True))
    try:
        return zoo.run(model)
    finally:
        for hook in hooks:
            hook.remove()


def test_dropping_equals_skipping(family, zoo):
    model = zoo.fresh(family)
    short = drop_blocks(model, [2, 0])
    assert len(anatomy(short).blocks) == 2
    assert len(anatomy(model).blocks) == 4
    torch.testing.assert_close(zoo.run(short), silenced(model, {0, 2}, zoo), rtol=1e-5, atol=1e-6)
    assert surgeries(short) == [{"name": "drop_blocks", "arguments": {"indices": [0, 2]}}]
    config = getattr(model, "config", None)
    if config is not None:
        assert (short.config.num_hidden_layers, config.num_hidden_layers) == (2, 4)


@pytest.mark.parametrize("name", ["llama", "hf_gpt2"])
def test_generation_with_a_cache_equals_generation_without(name, zoo):
    short = drop_blocks(zoo.fresh(name), [0, 2])
    indices = [module.layer_idx for module in short.modules() if hasattr(module, "layer_idx")]
    assert sorted(set(indices)) == [0, 1]
    tokens = torch.tensor([[3, 4, 5]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": 49}
    cached = short.generate(tokens, use_cache=True, **options)
    assert torch.equal(cached, short.generate(tokens, use_cache=False, **options))


def test_per_layer_lists_follow():
    config = transformers.Qwen2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2, intermediate_size=40,
        vocab_size=50, bos_token_id=1, eos_token_id=2, use_sliding_window=True, max_window_layers=2, sliding_window=4,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    before = list(model.config.layer_types)
    short = drop_blocks(model, [0])
    assert short.config.layer_types == before[1:]
    tokens = torch.tensor([[3, 4, 5]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": 49}
    assert torch.equal(short.generate(tokens, **options), short.generate(tokens, use_cache=False, **options))


def test_names_are_numbered_anew_and_features_can_be_extracted(zoo):
    model = zoo.fresh("timm_vit")
    short = drop_blocks(model, [1, -1])
    assert [name for name, _ in short.blocks.named_children()] == ["0", "1"]
    assert len(short.feature_info) == 2
    assert len(short.forward_intermediates(zoo.inputs(model), intermediates_only=True)) == 2


@pytest.mark.parametrize(
    ("indices", "message"),
    [([7], "block 7"), ([-5], "block -5"), (range(4), "all 4 blocks"), ([0, 1, 2, 3, 3], "all 4")],
)
def test_what_cannot_be_dropped(indices, message, zoo):
    with pytest.raises(SurgeryError, match=message):
        drop_blocks(zoo.fresh("timm_vit"), indices)


def test_a_table_a_depth_is_refused():
    model = timm.create_model(
        "vit_small_patch16_rope_mixed_224", img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=2
    )
    with pytest.raises(SurgeryError, match="block 1"):
        drop_blocks(model, 1)


def test_a_block_that_widens_the_stream_is_refused():
    hiera = timm.create_model("hiera_tiny_224", embed_dim=8, num_heads=1, stages=(1, 1, 1, 1), num_classes=3)
    with pytest.raises(SurgeryError, match=r"block 1 .*turns a stream of \(8,\) into one of \(16,\)"):
        drop_blocks(hiera, 1)


def test_scaling_positions_twice_multiplies_and_one_is_the_identity(zoo):
    for name in ("timm_vit", "torchvision", "hf_vit", "hf_gpt2"):
        model = zoo.fresh(name)
        assert torch.equal(zoo.run(scale_positions(model, 1.0)), zoo.run(model))
        twice = scale_positions(scale_positions(model, 0.5), 0.5)
        assert torch.equal(zoo.run(twice), zoo.run(scale_positions(model, 0.25)))
        assert not torch.equal(zoo.run(twice), zoo.run(model))
        assert zoo.count(twice) == zoo.count(model)


def test_no_positions_make_patches_exchangeable(zoo):
    model = scale_positions(zoo.fresh("timm_vit"), 0.0)
    hidden_BND = stream(model.patch_embed(zoo.inputs(model)))
    moved = hidden_BND.flip(1)
    with torch.no_grad():
        one, other = (model.forward_head(model.norm(model.blocks(model._pos_embed(x)))) for x in (hidden_BND, moved))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rotary_positions_are_refused(zoo):
    with pytest.raises(SurgeryError, match="rotary"):
        scale_positions(zoo.families["llama"](), 0.5)
    with pytest.raises(InputError):
        scale_positions(zoo.fresh("timm_vit"), float("nan"))
