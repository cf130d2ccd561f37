import collections
import random

import pytest

from deadweight.errors import InputError
from deadweight.prompting import Item, Task, demonstrations, load_task, split_items
from deadweight.prompting.demonstrations import inverted_label, natural_label, random_label
from deadweight.prompting.frames import frame_prompts, frames


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


def test_the_order_of_items_changes_no_prompt(topic):
    one, two = topic, shuffled(topic)
    for condition, k in frames(["zero-shot", "natural", "inverted", "random"], [2, 8]):
        left = frame_prompts(one, split_items(one, 3, 8), condition, k, 5)
        assert left == frame_prompts(two, split_items(two, 3, 8), condition, k, 5)


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
