"""Which items are shown, which are asked about, and the labels shown: all of it follows from hashes.

A hash of (seed, item) orders the items instead of a stream of random numbers, so that neither the order of a file
nor a limit nor a shard changes what any prompt says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deadweight.data.limit import check_limit
from deadweight.errors import InputError
from deadweight.prompting.tasks import Item, Task

POOL_SHARE = 1 / 3


def draw(*parts: object) -> int:
    """64 bits that follow from `parts` alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Split:
    """The items demonstrations come from, by label, and the items asked about; no text is in both."""

    pool: Mapping[str, tuple[Item, ...]]
    test: tuple[Item, ...]


def split_items(task: Task, seed: int, limit: int | None = None) -> Split:
    """A third of each class (at least one item) as the pool, the rest as test items.

    Test items alternate between the classes, so that any `limit` keeps them as balanced as the task is. A pool item
    whose text is that of a test item, or of an earlier pool item, is left out.
    Raises :class:`InputError` for a limit below one, and for a task too small to split.
    """
    check_limit(limit)
    pool: dict[str, tuple[Item, ...]] = {}
    tests: dict[str, list[Item]] = {}
    for label in task.labels:
        ranked = sorted(
            (item for item in task.items if item.label == label),
            key=lambda item: (draw(seed, "split", item.normalised), item.id),
        )
        size = max(1, round(len(ranked) * POOL_SHARE)) if ranked else 0
        pool[label], tests[label] = tuple(ranked[:size]), ranked[size:]
    taken = {item.normalised for items in tests.values() for item in items}
    for label, items in pool.items():
        kept = []
        for item in items:
            if item.normalised not in taken:
                taken.add(item.normalised)
                kept.append(item)
        pool[label] = tuple(kept)
    test = _alternate({label: tuple(items) for label, items in tests.items()}, task.labels)
    if not test:
        raise InputError(
            f"task {task.name!r} has {len(task.items)} items", expected="enough to demonstrate some and ask the rest"
        )
    return Split(pool, tuple(test[:limit]))


def demonstrations(task: Task, split: Split, k: int, seed: int) -> tuple[Item, ...]:
    """The `k` demonstrations of a seed: as balanced as k allows, and the first k of those of any larger k.

    Raises :class:`InputError` when a class of the pool is empty or cannot give its share.
    """
    if k < 0:
        raise InputError(f"k = {k}", expected="0 or more demonstrations")
    labels = [label for label in task.labels if any(item.label == label for item in task.items)]
    smallest = min(labels, key=lambda label: len(split.pool[label]))
    most = len(split.pool[smallest]) * len(labels)
    if k > most:
        raise InputError(
            f"k = {k} demonstrations of task {task.name!r}",
            expected=f"at most {most}: class {smallest!r} has {len(split.pool[smallest])} in the pool",
            cure="lower k, or give more items of that class",
        )
    ranked = {
        label: sorted(split.pool[label], key=lambda item: (draw(seed, "demonstration", item.id), item.id))
        for label in labels
    }
    shown: list[Item] = []
    for turn in range(-(-k // len(labels))):
        shown += [ranked[label][turn] for label in sorted(labels, key=lambda label: draw(seed, "turn", turn, label))]
    return tuple(shown[:k])


def _alternate(groups: Mapping[str, Sequence[Item]], labels: Sequence[str]) -> list[Item]:
    longest = max(map(len, groups.values()), default=0)
    return [groups[label][turn] for turn in range(longest) for label in labels if turn < len(groups[label])]


Relabel = Callable[[Task, Item, int], str]


def natural_label(task: Task, item: Item, seed: int) -> str:
    """y*: the item's own label."""
    return item.label


def inverted_label(task: Task, item: Item, seed: int) -> str:
    """φ(y*) (arXiv 2511.21038)."""
    return task.phi[item.label]


def random_label(task: Task, item: Item, seed: int) -> str:
    """Any of the labels with equal chance, whatever the item says (ours: the control)."""
    return task.labels[draw(seed, "random label", item.id) % len(task.labels)]


def partly_inverted(share: float) -> Relabel:
    """φ(y*) with chance `share`, else y* (ours); the labels a share inverts are among those a larger one inverts."""

    def label(task: Task, item: Item, seed: int) -> str:
        return task.phi[item.label] if draw(seed, "partial", item.id) < share * 2**64 else item.label

    return label


RELABEL: Mapping[str, Relabel] = {
    "natural": natural_label,
    "inverted": inverted_label,
    "random": random_label,
}
# Words that mean nothing for the task; which label gets which follows from the seed.
ABSTRACT: Mapping[str, tuple[str, ...]] = {
    "abstract": ("A", "B", "C", "D", "E", "F", "G", "H"),
    "nonsense": ("foo", "bar", "baz", "qux", "quux", "corge", "grault", "garply"),
}
ZERO_SHOT = "zero-shot"
CONDITIONS = (ZERO_SHOT, *RELABEL)
EVERY_CONDITION = (*CONDITIONS, *ABSTRACT, "inverted:SHARE")


def relabel(condition: str) -> Relabel:
    """What labels a condition shows; raises :class:`InputError` for an unknown one."""
    if condition in ABSTRACT:
        return natural_label
    if condition in RELABEL:
        return RELABEL[condition]
    kind, _, share = condition.partition(":")
    if kind == "inverted" and share.replace(".", "", 1).isdigit() and 0 <= float(share) <= 1:
        return partly_inverted(float(share))
    raise InputError(
        f"condition {condition!r}",
        expected=f"one of {', '.join(EVERY_CONDITION)}",
        cure="a share of inverted labels is written inverted:0.25",
    )


def worded(task: Task, condition: str, seed: int) -> Task:
    """The task with the label words of a condition: its own, or abstract ones dealt out by `seed`."""
    if condition not in ABSTRACT:
        return task
    words = ABSTRACT[condition][: len(task.labels)]
    if len(words) < len(task.labels):
        raise InputError(
            f"condition {condition!r} for {len(task.labels)} labels", expected=f"at most {len(words)} labels"
        )
    dealt = sorted(words, key=lambda word: draw(seed, condition, word))
    return replace(task, label_words=dict(zip(task.labels, dealt, strict=True)))


def check_conditions(conditions: Sequence[str]) -> None:
    """Raise :class:`InputError` unless all are known and none is given twice."""
    if len(set(conditions)) < len(conditions) or not conditions:
        raise InputError(f"conditions {list(conditions)}", expected=f"some of {', '.join(EVERY_CONDITION)}, each once")
    for condition in conditions:
        if condition != ZERO_SHOT:
            relabel(condition)
