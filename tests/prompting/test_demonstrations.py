import collections
import random
from dataclasses import replace

import pytest

from deadweight.errors import InputError
from deadweight.prompting import Item, Setting, Task, demonstrations, load_task, split_items
from deadweight.prompting.demonstrations import ABSTRACT, inverted_label, natural_label, random_label, relabel, worded
from deadweight.prompting.frames import frame_prompts, frames

EVERY = ["zero-shot", "natural", "inverted", "random", "abstract", "nonsense", "inverted:0.5"]


@pytest.fixture(scope="module")
def topic():
    return load_task("embedded:topic")


def shuffled(task):
    items = list(task.items)
    random.Random(1).shuffle(items)
    return Task(task.name, items, task.label_words, task.template, task.phi)


def test_pool_and_test_share_no_text(topic):
    split = split_items(topic, 0)
    pool = {item.normalised for items in split.pool.values() for item in items}
    assert not pool & {item.normalised for item in split.test}
    assert len(pool) + len(split.test) == len(topic.items)


def test_duplicates_of_test_items_never_demonstrate():
    rows = [(f"text {n // 3}", "ab"[n % 2]) for n in range(60)]  # each text three times, some with both labels
    items = [Item({"text": f"{text}{' ' * (n % 3)}"}, label) for n, (text, label) in enumerate(rows)]
    split = split_items(Task("t", items, {"a": "a", "b": "b"}, "{text}:"), 0)
    pool = [item.normalised for items in split.pool.values() for item in items]
    assert pool
    assert len(set(pool)) == len(pool)
    assert not set(pool) & {item.normalised for item in split.test}


@pytest.mark.parametrize("limit", [8, 24])
def test_a_limit_keeps_the_first_items_and_the_balance(topic, limit):
    whole, part = split_items(topic, 0), split_items(topic, 0, limit)
    assert part.test == whole.test[:limit]
    assert part.pool == whole.pool
    assert set(collections.Counter(item.label for item in part.test).values()) == {limit // 4}


@pytest.mark.parametrize("setting", [Setting(), Setting(per_item=True)], ids=["shared", "per item"])
@pytest.mark.parametrize("condition", EVERY)
def test_neither_order_nor_limit_nor_shards_change_a_prompt(topic, condition, setting):
    other = shuffled(topic)
    for _, k in frames([condition], [2, 8]):
        whole = frame_prompts(topic, split_items(topic, 3, 12), condition, k, 5, setting)
        assert frame_prompts(other, split_items(other, 3, 12), condition, k, 5, setting) == whole
        few = frame_prompts(topic, split_items(topic, 3, 4), condition, k, 5, setting)
        assert few.prompts == whole.prompts[:4]
        split = split_items(topic, 3, 12)
        shards = [frame_prompts(topic, replace(split, test=split.test[n::3]), condition, k, 5, setting).prompts
                  for n in range(3)]  # fmt: skip
        assert tuple(shards[at % 3][at // 3] for at in range(12)) == whole.prompts


def shown_labels(task, condition, k, seed=0):
    """The label words the demonstrations of a frame show, as a model reads them."""
    prompt = frame_prompts(task, split_items(task, 0, 1), condition, k, seed).prompts[0]
    return [line.removeprefix("Topic: ") for line in prompt.splitlines() if line.startswith("Topic: ")]


def test_shares_of_inversion_go_from_natural_to_inverted(topic):
    natural, inverted = shown_labels(topic, "natural", 32), shown_labels(topic, "inverted", 32)
    assert shown_labels(topic, "inverted:0", 32) == natural
    assert shown_labels(topic, "inverted:1", 32) == inverted
    turned = {}
    for share in (0, 0.25, 0.5, 0.75, 1):
        shown = shown_labels(topic, f"inverted:{share}", 32)
        assert all(word in pair for word, pair in zip(shown, zip(natural, inverted, strict=True), strict=True))
        turned[share] = {at for at, word in enumerate(shown) if word == inverted[at]}
    assert list(turned.values()) == sorted(turned.values(), key=len)
    assert turned[0.25] < turned[0.5] < turned[0.75]
    assert abs(len(turned[0.5]) - 16) < 9  # three standard deviations


@pytest.mark.parametrize("condition", ABSTRACT)
def test_abstract_labels_are_dealt_by_the_seed_and_keep_their_classes(topic, condition):
    words = set(ABSTRACT[condition][:4])
    natural, shown = shown_labels(topic, "natural", 16), shown_labels(topic, condition, 16)
    assert set(shown) == words
    assert len(set(zip(natural, shown, strict=True))) == 4  # one word a class
    frame = frame_prompts(topic, split_items(topic, 0, 1), condition, 4, 0)
    assert {word.strip() for word in frame.words} == words
    assert frame.words == tuple(f" {dict(zip(natural, shown, strict=True))[word]}" for word in topic.labels)
    assert len({tuple(worded(topic, condition, seed).label_words.values()) for seed in range(10)}) > 3


def test_more_labels_than_abstract_words():
    labels = [f"l{n}" for n in range(9)]
    items = [Item({"text": f"{label} {n}"}, label) for label in labels for n in range(3)]
    with pytest.raises(InputError, match="at most 8 labels"):
        worded(Task("t", items, {label: label for label in labels}, "{text}:"), "abstract", 0)


@pytest.mark.parametrize("condition", ["inverted:", "inverted:1.5", "inverted:x", "inverted:-1", "natural:0.5"])
def test_a_share_that_is_none(condition):
    with pytest.raises(InputError, match=r"inverted:0\.25"):
        relabel(condition)


def test_sets_of_an_items_own_are_nested_balanced_and_leak_free(topic):
    split = split_items(topic, 0)
    sets = {}
    for k in (4, 8):
        frame = frame_prompts(topic, split, "natural", k, 0, Setting(per_item=True))
        sets[k] = [prompt.split("\n\n") for prompt in frame.prompts]
    assert len({tuple(shown[:-1]) for shown in sets[8]}) == len(split.test)
    for few, many, item in zip(sets[4], sets[8], split.test, strict=True):
        assert many[:4] == few[:-1]
        assert len(many) == 9
        assert many[-1] == topic.ask(item)
        assert not any(one.startswith(topic.ask(item)) for one in many[:-1])
        assert collections.Counter(one.rsplit(" ", 1)[1] for one in many[:-1]) == dict.fromkeys(topic.labels, 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_demonstrations_are_nested_and_balanced(topic, seed):
    split = split_items(topic, 0)
    most = demonstrations(topic, split, 16, seed)
    for k in range(17):
        assert demonstrations(topic, split, k, seed) == most[:k]
        counts = collections.Counter(item.label for item in most[:k])
        assert max(counts.values(), default=0) - min((counts[label] for label in topic.labels), default=0) <= 1
    assert len(set(map(id, most))) == 16


def test_seeds_draw_different_sets(topic):
    split = split_items(topic, 0)
    assert len({tuple(item.id for item in demonstrations(topic, split, 8, seed)) for seed in range(5)}) == 5


def test_label_maps(topic):
    assert all(natural_label(topic, item, 0) == item.label for item in topic.items)
    assert all(inverted_label(topic, item, 0) == topic.phi[item.label] for item in topic.items)
    drawn = [random_label(topic, item, 0) for item in topic.items]
    counts = collections.Counter(drawn)
    assert set(counts) == set(topic.labels)
    assert max(counts.values()) < 60  # 30 expected of each; 60 would be six standard deviations off
    agreed = sum(label == item.label for label, item in zip(drawn, topic.items, strict=True))
    assert 10 < agreed < 60
    assert drawn != [random_label(topic, item, 1) for item in topic.items]


def test_conditions_differ_in_the_labels_shown_only(topic):
    split = split_items(topic, 0, 4)
    natural, inverted = (frame_prompts(topic, split, condition, 4, 0).prompts for condition in ("natural", "inverted"))

    def without_labels(prompts):
        return [[line for line in prompt.splitlines() if not line.startswith("Topic:")] for prompt in prompts]

    assert natural != inverted
    assert without_labels(natural) == without_labels(inverted)


def test_zero_shot_is_one_frame():
    assert frames(["zero-shot", "natural"], [4, 0, 2]) == [("zero-shot", 0), ("natural", 2), ("natural", 4)]


def test_more_demonstrations_than_the_pool_has(topic):
    with pytest.raises(InputError, match="at most 40"):
        demonstrations(topic, split_items(topic, 0), 41, 0)


@pytest.mark.parametrize("conditions", [["natrual"], ["natural", "natural"], []])
def test_conditions_that_are_none(conditions):
    with pytest.raises(InputError, match="zero-shot"):
        frames(conditions, [2])
