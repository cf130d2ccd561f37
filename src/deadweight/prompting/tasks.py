"""Classification tasks as values: items, label words, a template, and the permutation φ of the labels."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deadweight.data.tables import TextTable
from deadweight.errors import InputError, SourceError


@dataclass(frozen=True)
class Item:
    """One labelled text; `fields` are what the template names (``text``, or ``premise`` and ``hypothesis``)."""

    fields: Mapping[str, str] = field(hash=False)
    label: str

    @property
    def normalised(self) -> str:
        """The item without its label, case and spacing aside: duplicates have the same."""
        return "\n".join(" ".join(self.fields[name].split()).casefold() for name in sorted(self.fields))

    @property
    def id(self) -> str:
        """A digest of the content, so that the order of a file changes nothing."""
        text = json.dumps([sorted(self.fields.items()), self.label], ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def next_label(labels: Sequence[str]) -> dict[str, str]:
    """φ, a permutation without fixed points: the swap of two labels, the cycle of more (arXiv 2511.21038)."""
    return {label: labels[(at + 1) % len(labels)] for at, label in enumerate(labels)}


@dataclass(frozen=True)
class Task:
    """A classification task as a language model meets it.

    Parameters
    ----------
    name:
        What reports call it.
    items:
        The labelled items.
    label_words:
        Label to the word the model reads and writes; its order is the order of the classes.
    template:
        Text with ``{field}`` where an item's field stands, ``{{`` and ``}}`` for braces, that ends where the label word
        follows after one space.
    phi:
        The permutation of the labels that inverted demonstrations use; by default :func:`next_label`.

    Raises
    ------
    InputError
        No items, fewer than two classes, a label without a word, equal words, a template that names other fields
        than the items have, or a φ that is no permutation or leaves a label where it is.

    Examples
    --------
    >>> import deadweight as dw
    >>> task = dw.load_task("embedded:sentiment")
    >>> task.name, len(task.items) >= 120, task.label_words["positive"]
    ('sentiment', True, 'positive')
    """

    name: str
    items: Sequence[Item] = field(repr=False)
    label_words: Mapping[str, str] = field(hash=False)
    template: str
    phi: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.phi:
            object.__setattr__(self, "phi", next_label(self.labels))
        _check(self)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.label_words)

    def ask(self, item: Item) -> str:
        """The prompt for one item, without demonstrations; the label word follows after a space."""
        return self.template.format_map(item.fields)

    def answer(self, label: str) -> str:
        """What the model would write for `label`: a space and its word."""
        return f" {self.label_words[label]}"

    def prompt(self, demonstrations: Sequence[tuple[Item, str]], item: Item) -> str:
        """Demonstrations, each shown with the label beside it, and the question, a blank line between them."""
        shown = [self.ask(one) + self.answer(label) for one, label in demonstrations]
        return "\n\n".join([*shown, self.ask(item)])

    @property
    def digest(self) -> str:
        """Names everything a result can depend on; the order of the items is not part of it."""
        parts = [sorted(item.id for item in self.items), list(self.label_words.items()), self.template, dict(self.phi)]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


_BRACES = "write {FIELD} where a field stands, and {{ and }} for braces that are text"


def named_fields(template: str) -> set[str]:
    """The fields that a template names; raises :class:`InputError` for braces that name none.

    >>> named_fields('{text} {{"label":')
    {'text'}
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as problem:
        raise InputError(
            f"the template {template!r}: {problem}", expected="braces that come in pairs", cure=_BRACES
        ) from problem
    for _, name, form, conversion in parts:
        if name is not None and (form or conversion or not name.isidentifier()):
            raise InputError(
                f"the template {template!r} has {'{'}{name}{f'!{conversion}' if conversion else ''}"
                f"{f':{form}' if form else ''}{'}'}",
                expected="the plain name of a field between braces",
                cure=_BRACES,
            )
    return {name for _, name, _, _ in parts if name is not None}


def _check(task: Task) -> None:
    labels = set(task.labels)
    found = {item.label for item in task.items}
    if not task.items:
        raise InputError(f"task {task.name!r} has no items", expected="at least two items of two classes")
    if unknown := sorted(found - labels):
        raise InputError(f"task {task.name!r} has items labelled {unknown}", expected=f"labels {list(task.labels)}")
    if len(found) < 2:
        raise InputError(
            f"every item of task {task.name!r} is labelled {next(iter(found))!r}", expected="at least two classes"
        )
    if len(set(task.label_words.values())) < len(labels):
        raise InputError(f"task {task.name!r} gives two labels the same word", expected="a word for each label")
    if set(task.phi) != labels or set(task.phi.values()) != labels or any(a == b for a, b in task.phi.items()):
        raise InputError(
            f"phi of task {task.name!r} is {dict(task.phi)}",
            expected="a permutation of the labels that leaves none where it is",
            cure="leave phi out: two labels are swapped, more are moved on in a cycle",
        )
    wanted = named_fields(task.template)
    if not wanted or any(not wanted <= set(item.fields) for item in task.items):
        raise InputError(
            f"the template of task {task.name!r} names {sorted(wanted)}",
            expected=f"some of the items' fields: {sorted(task.items[0].fields)}",
            cure=_BRACES,
        )


def items_of(table: TextTable, columns: Mapping[str, str], label: str, *, skip_empty: bool = False) -> list[Item]:
    """The items of a table: `columns` maps each field of the template to its column.

    Raises :class:`SourceError` for a column that is not there and, unless such rows are to be skipped, for an empty
    value in one.
    """
    table.require(*columns.values(), label)
    rows = []
    for number, row in enumerate(table.rows, start=1):
        empty = [column for column in (*columns.values(), label) if not row[column].strip()]
        if not empty:
            rows.append(row)
        elif not skip_empty:
            raise SourceError(
                f"row {number} of {table.name!r} has nothing in column {empty[0]!r}", expected="a text and a label"
            )
    return [Item({name: row[column] for name, column in columns.items()}, row[label].strip()) for row in rows]
