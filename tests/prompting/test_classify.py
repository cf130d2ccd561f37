"""Decodings, prompts that are too long, labels that are none: what becomes of the scorer's figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deadweight.errors import InputError
from deadweight.prompting import Item, Setting, Task, classify, score_labels, split_items
from deadweight.prompting.alignment import INVALID
from deadweight.prompting.classify import CONTENT_FREE, Answers
from deadweight.prompting.frames import frame_prompts
from deadweight.prompting.generate import LocalGenerator, parse_label

WORDS = {"good": "positive", "bad": "not at all positive, no"}


def reviews(words=WORDS, size=24, length=1):
    texts = [f"the soup was {'very ' * (length * (n % 4))}warm {n}" for n in range(size)]
    items = [Item({"text": text}, list(words)[n % len(words)]) for n, text in enumerate(texts)]
    return Task("reviews", items, words, "Review: {text}\nSentiment:")


def asked(lm, task, decoding="sum", **options):
    split = split_items(task, 0, 6)
    return split, classify(lm, task, split, conditions=["natural"], k=[2], seed=0, decoding=decoding, **options)[0]


def test_decodings_are_three_readings_of_the_same_scores(llama):
    task = reviews()
    split, answers = asked(llama, task)
    prompts = frame_prompts(task, split, "natural", 2, 0).prompts
    words = [task.answer(label) for label in task.labels]
    sums, means = (score_labels(llama, prompts, words, reduction=how).double() for how in ("sum", "mean"))
    empty = Item({"text": CONTENT_FREE}, "good")
    shown = prompts[0].rsplit("Review:", 1)[0]
    free = score_labels(llama, [shown + task.ask(empty)], words).double()
    np.testing.assert_allclose(answers.scores("sum"), sums, atol=1e-4)
    np.testing.assert_allclose(answers.scores("mean"), means, atol=1e-4)
    np.testing.assert_allclose(answers.scores("calibrated"), sums - free, atol=1e-4)
    by = {name: asked(llama, task, name)[1].predicted.tolist() for name in ("sum", "mean", "calibrated")}
    assert by == {name: answers.decided(name).tolist() for name in by}


def test_decodings_decide_differently():
    answers = Answers("natural", 2, np.array([[-4.0, -9.0]]), np.array([[1, 3]]), np.array([-4.5, -9.1]))
    assert [answers.decided(name)[0] for name in ("sum", "mean", "calibrated")] == [0, 1, 0]
    shifted = replace(answers, content_free=np.array([-1.0, -8.0]), decoding="calibrated")
    assert shifted.predicted[0] == 1
    assert shifted.margin[0] == 2


def test_the_margin_is_the_lead_over_the_next(llama):
    _, answers = asked(llama, reviews({"a": "fresh", "b": "cold", "c": "rude"}), "mean")
    best, second = np.sort(answers.scores(), axis=1)[:, :-3:-1].T
    np.testing.assert_allclose(answers.margin, best - second, atol=1e-6)
    assert (answers.margin >= 0).all()


def test_prompts_beyond_the_context_are_refused_unless_demonstrations_may_go(llama):
    task = reviews(length=6)
    split = split_items(task, 0, 6)
    prompts = frame_prompts(task, split, "natural", 8, 0).prompts
    longest = max(len(llama.tokenizer(prompt + task.answer("bad")).input_ids) for prompt in prompts)
    roomy, short = replace(llama, max_length=longest), replace(llama, max_length=longest - 40)
    asking = {"conditions": ["natural"], "k": [8], "seed": 0}
    forward, llama.model.forward = llama.model.forward, None  # a call would raise a TypeError
    with pytest.raises(InputError, match="the model's context"):
        classify(short, task, split, **asking)
    llama.model.forward = forward
    (answers,) = classify(short, task, split, **asking, setting=Setting(too_long="drop"))
    assert max(answers.dropped) > 0
    for item, gone, found in zip(split.test, answers.dropped, answers.log_probs, strict=False):
        kept = frame_prompts(task, replace(split, test=(item,)), "natural", 8 - gone, 0).prompts
        expected = score_labels(roomy, kept, [task.answer(label) for label in task.labels])[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        whole = len(llama.tokenizer(kept[0] + task.answer("bad")).input_ids) - 1
        assert whole <= short.max_length


def test_a_question_alone_too_long_is_refused_even_then(llama):
    task = reviews(length=30)
    short = replace(llama, max_length=60)
    with pytest.raises(InputError, match="the model's context"):
        classify(short, task, split_items(task, 0, 6), conditions=["natural"], k=[2], seed=0,
                 setting=Setting(too_long="drop"))  # fmt: skip


REPLIES = {
    "the word": (" positive", 0),
    "in another case, with more after it": ("\nNegative. Because", 1),
    "a longer word that begins with it": ("positively", INVALID),
    "the longer of two that begin alike": (" no one", 3),
    "the shorter of two that begin alike": (" no, one", 2),
    "something else": (" maybe positive", INVALID),
    "nothing": ("", INVALID),
}


@pytest.mark.parametrize("case", REPLIES)
def test_a_reply_is_read_as_the_label_it_begins_with(case):
    text, expected = REPLIES[case]
    assert parse_label(text, [" positive", " negative", " no", " no one"]) == expected


@torch.no_grad()
def test_greedy_continuations_are_those_of_one_prompt_at_a_time(family_lm):
    prompts = ["Review: the soup was warm.\nSentiment:", "who", "the bread was fresh and the room was cold " * 3]
    family_lm.model.generation_config.eos_token_id = None
    found = LocalGenerator(family_lm).generate(prompts, 5)
    for prompt, text in zip(prompts, found, strict=True):
        ids = family_lm.tokenizer(prompt).input_ids
        for _ in range(5):
            ids.append(int(family_lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert text == family_lm.tokenizer.decode(ids[-5:], skip_special_tokens=True)


def test_prompts_that_leave_no_room_to_write_are_refused(llama):
    llama.model.forward = None
    with pytest.raises(InputError, match="at most 251"):
        LocalGenerator(llama).generate(["the soup " * 200], 5)
