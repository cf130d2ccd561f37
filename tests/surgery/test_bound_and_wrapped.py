"""Models whose parts are bound to their depth, and models as training scripts leave them: right, or refused by name."""

import pytest
import torch
import transformers as t
from torch.nn.utils import parametrizations, prune

import deadweight as dw
from deadweight.errors import InputError, SurgeryError

IDS = torch.arange(3, 27)[None]
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def without(model, gone):
    """The logits of the original while the blocks `gone` hand on what they are given."""
    handles = [
        block.module.register_forward_hook(
            lambda module, args, kwargs, output: (
                (args[0], *output[1:]) if isinstance(output, tuple) else args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        )
        for block in dw.anatomy(model).blocks
        if block.index in gone
    ]
    try:
        with torch.no_grad():
            return model(input_ids=IDS, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()


def gpt_neo():
    torch.manual_seed(0)
    config = t.GPTNeoConfig(
        vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, window_size=6, max_position_embeddings=64,
        attention_types=[[["global", "local"], 2]], **SPECIAL)  # fmt: skip
    model = t.GPTNeoForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    return model


@pytest.mark.parametrize("gone", [[1], [0, 3], [3]])
def test_blocks_that_call_their_number_otherwise_are_renumbered(gone, tmp_path):
    model = gpt_neo()
    short, expected = dw.drop_blocks(model, gone), without(model, gone)
    with torch.no_grad():
        for options in ({"use_cache": False}, {}):
            torch.testing.assert_close(short(input_ids=IDS, **options).logits, expected)
    greedy = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(short.generate(IDS, **greedy), short.generate(IDS, use_cache=False, **greedy))
    short.save_pretrained(tmp_path)  # the configuration says what is left, in all of its words
    with torch.no_grad():
        back = t.GPTNeoForCausalLM.from_pretrained(tmp_path).eval()(input_ids=IDS).logits
    torch.testing.assert_close(back, expected)


def gemma3n():
    config = t.Gemma3nTextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
        num_hidden_layers=4, num_kv_shared_layers=0, head_dim=8, sliding_window=8, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=64, laurel_rank=4, altup_num_inputs=2, activation_sparsity_pattern=[0.0] * 4,
        layer_types=["sliding_attention", "full_attention"] * 2, **SPECIAL)  # fmt: skip
    return t.Gemma3nForCausalLM(config).eval()


def gpt2_divided():
    return t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=64, n_embd=32, n_layer=4, n_head=4, scale_attn_by_inverse_layer_idx=True, **SPECIAL)
    ).eval()


def jamba():
    return t.JambaForCausalLM(
        t.JambaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4,
            use_mamba_kernels=False, **SPECIAL)).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("build", "names"),
    [(gemma3n, r"embed_tokens_per_layer\.weight.* a part for each block"), (gpt2_divided, "divided by their number")],
    ids=["weights for each block", "attention divided by the number"],
)
def test_what_is_bound_to_the_depth_is_named_before_anything_is_done(build, names):
    model = build()
    with pytest.raises(SurgeryError, match=names):
        dw.drop_blocks(model, [1], inplace=True)
    assert dw.anatomy(model).depth == 4


def test_a_hybrid_whose_cache_counts_its_layers_otherwise_is_refused():
    with pytest.raises(SurgeryError, match="does not run without block 1"):
        dw.drop_blocks(jamba(), [1])


def test_blocks_that_hand_each_other_more_than_the_stream_are_refused():
    model = llama()
    model.config.num_kv_shared_layers = 1
    with pytest.raises(SurgeryError, match="keys and values of others"):
        dw.drop_blocks(model, [1])


def test_a_model_that_computes_with_places_may_lose_its_end():
    model = gpt2_divided()
    torch.testing.assert_close(dw.drop_blocks(model, [2, 3])(input_ids=IDS).logits, without(model, [2, 3]))


def llama():
    torch.manual_seed(0)
    return t.LlamaForCausalLM(
        t.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                      **SPECIAL)).eval()  # fmt: skip


def pruned():
    model = llama()
    for name, module in model.named_modules():
        if name.endswith(("up_proj", "down_proj")):
            prune.random_unstructured(module, "weight", 0.5)
    model(input_ids=IDS)  # what is left of the weights now has a history, which cannot be copied
    return model


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "surgery",
    [
        lambda m, **o: dw.shallow_mlps(m, 0.5, **o),
        lambda m, **o: dw.drop_blocks(m, [1], **o),
        lambda m, **o: dw.shallow_mlps(m, 0.5, by="activation", refit="layer", batches=[{"input_ids": IDS}] * 3, **o),
    ],
    ids=["narrow", "drop", "narrow with refit"],
)
def test_pruning_masks_are_made_permanent_and_it_is_said(surgery, inplace):
    model, plain = pruned(), llama()
    for name, module in pruned().named_modules():
        if name.endswith(("up_proj", "down_proj")):
            plain.get_submodule(name).weight.data = module.weight.detach().clone()
    expected = surgery(plain)
    with pytest.warns(UserWarning, match="the pruning masks of 6 weights were made permanent"):
        changed = surgery(model, inplace=inplace)
    assert not prune.is_pruned(changed)
    assert prune.is_pruned(model) is not inplace
    with torch.no_grad():
        torch.testing.assert_close(changed(input_ids=IDS).logits, expected(input_ids=IDS).logits)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, torch.nn.utils.weight_norm], ids=["now", "before"])
def test_a_weight_computed_anew_in_every_call_is_not_narrowed(norm):
    model = llama()
    norm(model.model.layers[1].mlp.up_proj)
    with pytest.raises(SurgeryError, match="computed anew"):
        dw.shallow_mlps(model, 0.5)


def test_a_configuration_with_infinity_and_tuples_is_saved_and_read(tmp_path):
    torch.manual_seed(0)
    config = t.BambaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8,
        mamba_n_groups=1, **SPECIAL)  # fmt: skip
    assert config.time_step_limit == (0.0, float("inf"))
    short = dw.drop_blocks(t.BambaForCausalLM(config).eval(), [2])
    dw.save(short, tmp_path / "short")
    back = dw.load(f"file:{tmp_path / 'short'}").eval()
    assert back.config.time_step_limit == config.time_step_limit
    with torch.no_grad():
        torch.testing.assert_close(back(input_ids=IDS).logits, short(input_ids=IDS).logits)


def test_a_model_of_several_streams_has_no_profile():
    with pytest.raises(InputError, match=r"a block's stream is of shape \(2, 1, 24, 32\) for 1 inputs"):
        dw.profile(gemma3n(), [({"input_ids": IDS},)])
