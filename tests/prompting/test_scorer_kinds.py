"""Kinds of position, mixer and tokenizer that a pack could get wrong: every score is that of a plain forward pass."""

import pytest
import torch
import transformers as t

from deadweight.prompting import score_labels
from deadweight.prompting.encoding import Query, encode_queries, prompt_ids
from deadweight.prompting.generate import LocalGenerator
from deadweight.prompting.lengths import row_limit, same_up_to
from deadweight.prompting.scorer import token_scores

SIZE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {**SIZE, **SPECIAL, "intermediate_size": 48}
HALF = [1.0] * 4
FAMILIES = {
    "window in a word of its own": lambda: t.GPTNeoConfig(
        **{k: v for k, v in SIZE.items() if k not in ("num_hidden_layers", "num_attention_heads")}, **SPECIAL,
        num_layers=2, num_heads=4, window_size=56, attention_types=[[["global", "local"], 1]]),
    "rotary by length": lambda: t.LlamaConfig(
        **LLAMA, max_position_embeddings=48,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}),
    "two sets of rotary factors": lambda: t.Phi3Config(
        **LLAMA, original_max_position_embeddings=48, max_position_embeddings=256,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": HALF, "factor": 5.3,
                         "long_factor": [8.0, 4.0, 3.0, 2.0], "original_max_position_embeddings": 48}),
    "ALiBi": lambda: t.MptConfig(vocab_size=64, d_model=32, n_heads=4, n_layers=2),
    "attention both ways": lambda: t.BertConfig(**SIZE, **SPECIAL, intermediate_size=48),
    "experts": lambda: t.MixtralConfig(**LLAMA, num_key_value_heads=2, num_local_experts=4),
    "state space": lambda: t.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8, **SPECIAL),
    "recurrent, deaf to masks": lambda: t.RwkvConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=48, **SPECIAL),
    "heads in a word of its own": lambda: t.XLMConfig(vocab_size=64, emb_dim=32, n_heads=4, n_layers=2, causal=True),
    "sizes layer by layer": lambda: t.Gemma4TextConfig(
        **LLAMA, num_key_value_heads=2, head_dim=8, global_head_dim=16, sliding_window=7,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=64),
}  # fmt: skip


def build(config):
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                weight.mul_(5)  # so that tokens attend
    return model


def questions():
    """Sequences that share 20 tokens, short and long ones, together longer than any of them."""
    draw = torch.Generator().manual_seed(3)
    some = lambda n: tuple(torch.randint(3, 60, (n,), generator=draw).tolist())  # noqa: E731
    shared, asked = some(20), []
    for number, length in enumerate((3, 9, 20, 9, 14, 30, 50, 5)):
        body = shared + some(length)
        asked += [Query(number, n, (*body, *some(n + 1)), len(body)) for n in range(2)]
    return [*asked, Query(8, 0, (*some(6), 5), 6)]


@torch.no_grad()
def plain(model, query):
    logits = model(input_ids=torch.tensor([query.tokens[:-1]])).logits[0].double().log_softmax(-1)
    return torch.stack([logits[at - 1, query.tokens[at]] for at in range(query.start, len(query.tokens))]).float()


@pytest.mark.filterwarnings("ignore:.*packed sequences", "ignore:.*rope_parameters", "ignore:.*torch.jit")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_score_is_that_of_a_plain_pass_alone(family):
    model, asked = build(FAMILIES[family]()), questions()
    fresh = build(FAMILIES[family]())
    expected = [plain(fresh, query) for query in sorted(asked, key=lambda one: len(one.tokens))]
    order = sorted(range(len(asked)), key=lambda n: len(asked[n].tokens))
    for memory in (None, 700_000):
        found, _ = token_scores(model, asked, memory=memory)
        assert torch.cat(expected).std() > 0.02  # the comparison means something
        torch.testing.assert_close([found[n] for n in order], expected, rtol=0, atol=1e-4)


def test_what_a_configuration_says_about_lengths():
    assert row_limit(FAMILIES["window in a word of its own"]()) == 56
    assert [row_limit(t.AutoConfig.for_model(name)) for name in ("llama", "mistral", "qwen2", "gemma3_text")] == [
        None
    ] * 4
    assert same_up_to(FAMILIES["rotary by length"]()) == 48
    assert same_up_to(FAMILIES["two sets of rotary factors"]()) == 48
    scaled = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
    for kind in ({"rope_type": "yarn"}, {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}):
        assert same_up_to(t.LlamaConfig(max_position_embeddings=128, rope_parameters={**scaled, **kind})) is None


def test_a_prompt_that_begins_with_its_start_token_gets_no_second_one(build_tokenizer):
    tokenizer = build_tokenizer("<s>")
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    assert tokenizer("the soup").input_ids[0] == 0
    (plainly,) = encode_queries(tokenizer, ["the soup"], [[" was"]], 99)
    (begun,) = encode_queries(tokenizer, ["<s>the soup"], [[" was"]], 99)
    assert (begun.tokens, begun.start) == (plainly.tokens, plainly.start)
    assert plainly.tokens.count(0) == 1
    assert prompt_ids(tokenizer, ["the soup", "<s>the soup"]) == [list(plainly.tokens[: plainly.start])] * 2


@torch.no_grad()
def likeliest(lm, prompt, length):
    ids = list(lm.tokenizer(prompt).input_ids)
    start = len(ids)
    for _ in range(length):
        ids.append(int(lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


PROMPTS = ["the bread was", "Review: the soup was warm and the waiter was", "who wrote the letter", "fresh fresh bread"]


def test_greedy_answers_are_the_likeliest_tokens_whatever_a_model_brings_along(llama):
    expected = [likeliest(llama, prompt, 4) for prompt in PROMPTS]
    own = llama.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.eos_token_id = 1.8, 1, None
    first = [llama.tokenizer(one).input_ids[0] for one in expected if one]
    own.suppress_tokens = first
    assert LocalGenerator(llama).generate(PROMPTS, 4) == expected
    assert llama.model.generation_config is own
    assert own.suppress_tokens == first


COMPANY = {
    "padded": lambda size: t.LlamaConfig(**{**LLAMA, "vocab_size": size}),
    "equal": lambda size: t.MambaConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2, state_size=8, **SPECIAL),
    "alone": lambda size: t.RwkvConfig(  # its states of several texts run into each other
        vocab_size=size, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=48, **SPECIAL
    ),
}


@pytest.mark.parametrize("how", COMPANY)
def test_prompts_are_continued_in_company_that_changes_nothing(build_lm, how):
    lm = build_lm(COMPANY[how])
    if how == "equal":
        heeding = lm.model.forward
        lm.model.forward = lambda *args, attention_mask=None, **more: heeding(*args, **more)  # deaf to padding
    lm.model.generation_config.eos_token_id = None
    prompts = [*PROMPTS, PROMPTS[0][::-1]]
    expected = [likeliest(lm, prompt, 3) for prompt in prompts]
    generator = LocalGenerator(lm)
    assert generator.generate(prompts, 3) == expected
    assert generator._company() == how


def test_scores_in_batches_answer_in_order(build_lm):
    lm = build_lm(lambda size: t.BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4))
    with pytest.warns(UserWarning, match="packed"):
        together = score_labels(lm, [*PROMPTS, *PROMPTS], [" yes", " no"])
    with pytest.warns(UserWarning, match="packed"):
        alone = torch.cat([score_labels(lm, [prompt], [" yes", " no"]) for prompt in PROMPTS])
    torch.testing.assert_close(together, alone.repeat(2, 1), rtol=0, atol=1e-4)
