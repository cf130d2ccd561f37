import pytest
import torch
from transformers import GPT2Config as HuggingFaceConfig
from transformers import GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from deadweight.attention import mechanism
from deadweight.errors import InputError
from deadweight.models.gpt2 import GPT2, GPT2Config

TINY = GPT2Config(vocabulary=50, length=20, width=24, depth=3, heads=4)


def huggingface(**options):
    torch.manual_seed(0)
    config = HuggingFaceConfig(vocab_size=50, n_positions=20, n_embd=24, n_layer=3, n_head=4, **options)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # as initialised, biases are zero and norms one: their names would not be tested
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.2)
    return model


@pytest.mark.parametrize("options", [{}, {"n_inner": 30}, {"layer_norm_epsilon": 0.1}], ids=str)
@pytest.mark.parametrize("length", [1, 7, 20])
def test_logits_equal_those_of_transformers(options, length):
    theirs = huggingface(**options)
    ours = GPT2.from_huggingface(theirs)
    tokens = torch.randint(50, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
@pytest.mark.parametrize("prompt", [1, 5, 12])
def test_greedy_generation_with_a_cache_equals_that_of_transformers(prompt):
    theirs = huggingface(bos_token_id=None, eos_token_id=None, pad_token_id=0)
    theirs.transformer.wpe.weight.mul_(20)  # or every place would bring the same token
    theirs.transformer.ln_f.bias.zero_()
    ours = GPT2.from_huggingface(theirs)
    tokens = torch.randint(50, (3, prompt), generator=torch.Generator().manual_seed(prompt))
    wanted = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False)
    assert torch.equal(ours.generate(tokens, 8), wanted)
    assert len(set(wanted[:, prompt:].flatten().tolist())) > 3  # or nothing was tested


@torch.no_grad()
@pytest.mark.parametrize("name", [None, "sliding_window", "linear", "lsh", "mla", "gated_delta"])
def test_steps_with_a_cache_give_the_logits_of_the_full_pass(name):
    torch.manual_seed(0)
    attention = None if name is None else lambda _: mechanism(name, 24, 4)
    model = GPT2(TINY, attention).double()
    tokens = torch.randint(50, (2, 14), generator=torch.Generator().manual_seed(1))
    cache, start = model.new_cache(2), 0
    for count in (5, 1, 6, 2):
        logits, cache = model.step(tokens[:, start : start + count], cache)
        start += count
        torch.testing.assert_close(logits, model(tokens[:, :start])[:, -1], rtol=1e-9, atol=1e-9)
    assert cache.length == start


@torch.no_grad()
def test_drawn_tokens_follow_the_generator_and_cold_ones_are_the_likeliest():
    model = GPT2.from_huggingface(huggingface())
    prompt = torch.zeros(2, 3, dtype=torch.long)
    draws = [model.generate(prompt, 9, temperature=5.0, generator=torch.Generator().manual_seed(n)) for n in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(model.generate(prompt, 9, temperature=1e-4), model.generate(prompt, 9))


@pytest.mark.parametrize(
    ("prompt", "count", "told"), [(12, 9, "21 tokens"), (0, 3, "prompt"), (3, -1, "-1 tokens")], ids=str
)
def test_generation_beyond_what_there_is_is_refused_before_it_starts(prompt, count, told):
    with pytest.raises(InputError, match=told):
        GPT2(TINY).generate(torch.zeros(1, prompt, dtype=torch.long), count)


def test_an_attention_without_a_cache_is_named():
    with pytest.raises(InputError, match="block 0 with a Identity"):
        GPT2(TINY, attention=lambda _: torch.nn.Identity()).new_cache(1)


def test_the_copy_shares_nothing_with_the_original():
    theirs = huggingface()
    ours = GPT2.from_huggingface(theirs)
    before = theirs.transformer.wte.weight.clone()
    with torch.no_grad():
        ours.tokens.weight.zero_()
    assert torch.equal(theirs.transformer.wte.weight, before)
    assert ours.head.weight is ours.tokens.weight


def test_loss_is_the_cross_entropy_of_the_targets():
    model = GPT2(TINY)
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    logits, loss = model(tokens[:, :-1], tokens[:, 1:])
    chosen = logits.log_softmax(-1).gather(2, tokens[:, 1:, None])
    torch.testing.assert_close(loss, -chosen.mean())


def test_any_attention_goes_into_the_blocks_and_is_told_its_number():
    seen = []

    def make(index):
        seen.append(index)
        return torch.nn.Identity()

    model = GPT2(TINY, attention=make)
    assert seen == [0, 1, 2]
    assert all(isinstance(block.attention, torch.nn.Identity) for block in model.blocks)
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 50)


def test_it_is_causal():
    model = GPT2(TINY).eval()
    tokens = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 50
    torch.testing.assert_close(model(changed)[:, :7], model(tokens)[:, :7])
    assert not torch.allclose(model(changed)[:, 7:], model(tokens)[:, 7:])


def test_the_default_is_the_published_small_model():
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT2(GPT2Config()).parameters()) == 124_439_808


def test_what_writes_to_the_stream_starts_smaller():
    torch.manual_seed(0)
    block = GPT2(GPT2Config(vocabulary=50, length=20, width=128, depth=8, heads=4)).blocks[0]
    assert float(block.mlp.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    for layer in (block.mlp.fc2, block.attention.proj):
        assert float(layer.weight.detach().std()) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"heads": 5}, "heads 5 do not divide width 24"), ({"depth": 0}, "depth 0")],
    ids=["heads", "depth"],
)
def test_shapes_that_do_not_fit_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        GPT2Config(**{"vocabulary": 50, "length": 20, "width": 24, "depth": 3, "heads": 4, **options})


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(InputError, match="21 tokens"):
        GPT2(TINY)(torch.zeros(1, 21, dtype=torch.long))


def test_other_models_and_other_gpt2s_are_refused():
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(InputError, match="LlamaForCausalLM"):
        GPT2.from_huggingface(llama)
    with pytest.raises(InputError, match="relu"):
        GPT2.from_huggingface(huggingface(activation_function="relu"))
    with pytest.raises(InputError, match="Linear"):
        GPT2.from_huggingface(torch.nn.Linear(2, 2))
