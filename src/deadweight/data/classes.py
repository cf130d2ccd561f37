"""Which output of a model's head stands for which class of the data: by name, by number, by order, or as told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deadweight.errors import InputError, SourceError
from deadweight.source import Source

_SHOWN = 5
# As `deadweight.models.head_names` gives it.
Head = tuple[tuple[tuple[str, ...], ...], bool]


@dataclass(frozen=True)
class HeadNames:
    """What the outputs of a head are called.

    names:  for each output the names it goes by, the fullest first; none where nothing names it.
    sure:   whether the model itself says so; names inferred from the number of outputs may be others'.
    """

    names: tuple[tuple[str, ...], ...]
    sure: bool = True

    def __len__(self) -> int:
        return len(self.names)


class ClassNames(tuple[str, ...]):
    """The names of the labels 0, 1, …, and how they stand to the outputs of a model.

    order:  ``told`` where somebody has put them into the order of the outputs, ``head`` where labels are outputs
            already, ``other`` where they are said not to be a model's classes; empty where nothing is known.
    note:   what a reader must know about how they were matched.
    """

    order: str
    note: str

    def __new__(cls, names: Sequence[str], order: str = "", note: str = "") -> ClassNames:
        made = super().__new__(cls, tuple(names))
        made.order, made.note = order, note
        return made


def reordered(classes: Sequence[str], source: Source) -> tuple[ClassNames, list[int]]:
    """The classes in the order that ``?classes=`` asks for, and the new number of each.

    Raises :class:`SourceError` unless it names all of them once, or ``none``.
    """
    text = source.options.get("classes")
    numbers = list(range(len(classes)))
    if text is None:
        return ClassNames(classes), numbers
    if text == "none":
        return ClassNames(classes, "other"), numbers
    wanted = [name.strip() for name in text.split(",")]
    if sorted(wanted) != sorted(classes):
        raise SourceError(
            f"classes={text!r} in {source.text!r}",
            expected=f"each of its {len(classes)} classes once, between commas: {_some(classes)}; or none",
        )
    return ClassNames(wanted, "told"), [wanted.index(name) for name in classes]


def aligned(classes: ClassNames, head: HeadNames) -> tuple[ClassNames, list[int]]:
    """The names of all outputs, where classes of the data have theirs, and the output of each class.

    Classes that are said not to be the head's keep their numbers. Raises :class:`InputError` as :func:`outputs_of`.
    """
    if classes.order == "other":
        return classes, list(range(len(classes)))
    places, note = outputs_of(classes, head)
    names = [own[0] if own else f"output {number}" for number, own in enumerate(head.names)]
    for name, place in zip(classes, places, strict=True):
        names[place] = name
    return ClassNames(names, "head", note), places


def outputs_of(classes: Sequence[str], head: HeadNames) -> tuple[list[int], str]:
    """The output that stands for each class, and what a reader must know about it.

    Classes are matched by name (case, hyphens and underscores aside), then by number, then, where nothing names the
    outputs and there are as many, by their order.

    Raises :class:`InputError` where the classes are not the head's.

    >>> outputs_of(["golden_retriever", "tabby_cat"], HeadNames((("tabby cat",), ("golden retriever",))))[0]
    [1, 0]
    >>> outputs_of(["1", "10", "2"], HeadNames(((),) * 3))
    Traceback (most recent call last):
    deadweight.errors.InputError: the classes 1, 10, 2 are numbers, other ones than those of the head's 3 outputs
      expected: 0 to 2, or 1 to 3
      what to do: give them in the order of the outputs: ?classes=FIRST,SECOND,…
    """
    if getattr(classes, "order", "") in ("told", "head") and len(classes) == len(head):
        return list(range(len(classes))), getattr(classes, "note", "")
    places = _by_name(classes, head)
    if places is not None:
        return places, "" if _in_turn(places) else "the classes are matched with the head's outputs by their names"
    places = _by_number(classes, head)
    if places is not None:
        return places, "" if _in_turn(places) else "the classes are matched with the head's outputs by their numbers"
    named = any(head.names) and (head.sure or _known(classes, head))
    if len(classes) != len(head):
        raise InputError(
            f"the head tells {len(head)} classes apart and the images come in {len(classes)}: {_some(classes)}",
            expected="as many, or classes that are called what the head calls them" + _called(head),
            cure="give a model with a head for these classes (?num_classes=… for one to be trained), or write "
            "?classes=none after the images: then what is judged is how many of its own predictions change",
        )
    if named:
        unknown = [name for name in classes if _find(name, _index(head)) is None]
        raise InputError(
            f"the classes {_some(unknown or classes)} are not what the head calls its outputs",
            expected=f"names of its outputs{_called(head)}",
            cure="name the folders so, or give them in the order of the outputs: ?classes=FIRST,SECOND,…",
        )
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        raise InputError(
            f"the classes {_some(classes)} are numbers, other ones than those of the head's {len(head)} outputs",
            expected=f"0 to {len(head) - 1}, or 1 to {len(head)}",
            cure="give them in the order of the outputs: ?classes=FIRST,SECOND,…",
        )
    return list(range(len(classes))), (
        "nothing says what the head's outputs stand for: they are taken in the order of the classes' names, "
        f"{_some(classes)}"
    )


def _in_turn(places: Sequence[int]) -> bool:
    return list(places) == list(range(len(places)))


def plain(name: str) -> str:
    """A name without what spellings differ in.

    >>> plain("Golden_Retriever")
    'golden retriever'
    """
    return " ".join(re.findall(r"\w+", name.replace("_", " ").casefold()))


def _index(head: HeadNames) -> list[dict[str, set[int]]]:
    """Outputs by full name, then by each name they go by."""
    full: dict[str, set[int]] = {}
    every: dict[str, set[int]] = {}
    for number, names in enumerate(head.names):
        for place, name in enumerate(names):
            every.setdefault(plain(name), set()).add(number)
            if place == 0:
                full.setdefault(plain(name), set()).add(number)
    return [full, every]


def _find(name: str, index: list[dict[str, set[int]]]) -> int | None:
    """The one output of that name."""
    for names in index:
        found = names.get(plain(name), set())
        if len(found) == 1:
            return next(iter(found))
    return None


def _by_name(classes: Sequence[str], head: HeadNames) -> list[int] | None:
    index = _index(head)
    found = [place for name in classes if (place := _find(name, index)) is not None]
    return found if len(set(found)) == len(classes) else None


def _known(classes: Sequence[str], head: HeadNames) -> bool:
    index = _index(head)
    return any(_find(name, index) is not None for name in classes)


def _by_number(classes: Sequence[str], head: HeadNames) -> list[int] | None:
    """Classes that are numbers: those in the head's names, else its outputs' own, counted from 0 or from 1."""
    if not all(re.fullmatch(r"\d{1,9}", name) for name in classes):
        return None
    wanted = [int(name) for name in classes]
    in_names = [re.findall(r"\d+", names[0]) if names else [] for names in head.names]
    numbers = [int(found[0]) for found in in_names if len(found) == 1]
    if len(set(numbers)) == len(head) and set(wanted) <= set(numbers):
        return [numbers.index(number) for number in wanted]
    for first in (0, 1):
        if sorted(wanted) == list(range(first, first + len(head))):
            return [number - first for number in wanted]
    return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _called(head: HeadNames) -> str:
    names = [own[0] for own in head.names if own]
    return ": " + "; ".join(names[:_SHOWN]) + ("; …" if len(names) > _SHOWN else "") if names else ""


__all__ = ["ClassNames", "Head", "HeadNames", "aligned", "outputs_of", "plain", "reordered"]
