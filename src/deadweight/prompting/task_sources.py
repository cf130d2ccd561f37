"""Source strings to tasks: embedded ones, files of one's own, public sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deadweight.data.tables import read_table
from deadweight.errors import SourceError
from deadweight.prompting.embedded_tasks import TASKS
from deadweight.prompting.public_tasks import PUBLIC
from deadweight.prompting.tasks import Task, items_of
from deadweight.source import Source, parse_source

PAIRS = (("premise", "hypothesis"), ("first", "second"))
TEMPLATES: Mapping[tuple[str, ...], str] = {
    ("text",): "Text: {text}\nLabel:",
    ("premise", "hypothesis"): "Premise: {premise}\nHypothesis: {hypothesis}\nLabel:",
    ("first", "second"): "First: {first}\nSecond: {second}\nLabel:",
}


def load_task(source: str) -> Task:
    """A task from its source string.

    ``embedded:NAME`` (also tasks added to ``TASKS``), a file of one's own: ``csv:PATH?text=COLUMN&label=COLUMN``,
    ``jsonl:``, ``parquet:``, or a set of the hub: ``hf:DATASET[:CONFIG][@REV][#SPLIT]``, whose columns and words are
    declared for the public ones `deadweight list tasks` shows and named like a file's for all others. Two columns are
    named ``premise=…&hypothesis=…`` or ``first=…&second=…`` instead of ``text=…``. The label values are the label
    words unless ``words=0:bad,1:good`` says better; ``template=`` replaces the template. ``csv:`` also takes
    ``delimiter=`` and ``encoding=``.

    Raises
    ------
    SourceError
        The source cannot be read, has no rows, lacks a named column or has an empty value in one.
    InputError
        The rows make no task: one class, two labels of the same word, a template that does not fit.

    >>> task = load_task("embedded:topic")
    >>> task.labels[:2], len(task.items) >= 120
    (('business', 'science'), True)
    """
    parsed = parse_source(source, example="csv:reviews.csv?text=body&label=stars")
    if parsed.scheme == "embedded":
        return TASKS.get(parsed.name)()
    name, revision, split = parsed.repository
    if parsed.scheme == "hf" and name in PUBLIC and not set(parsed.options) - {"words", "template"}:
        return _public(parsed, name, revision, split)
    return _named(parsed)


def _public(source: Source, name: str, revision: str | None, split: str | None) -> Task:
    known = PUBLIC[name]
    wanted = revision or known.revision
    full = f"{name}{f'@{wanted}' if wanted else ''}#{split or known.split}"
    table = read_table(replace(source, name=full))
    items = items_of(table, known.columns, known.label, skip_empty=True)  # public sets have a few rows without a text
    words = _words(source, sorted(known.words)) if "words" in source.options else known.words
    return Task(source.text, items, words, _template(source) or known.template)


def _named(source: Source) -> Task:
    fields = next((pair for pair in PAIRS if set(pair) & set(source.options)), ("text",))
    known = {*fields, "label", "words", "template"} | ({"delimiter", "encoding"} if source.scheme == "csv" else set())
    if unknown := [name for name in source.options if name not in known]:
        raise SourceError(
            f"{source.text!r} has the option {unknown[0]!r}",
            expected=f"some of {', '.join(sorted(known))}",
        )
    columns = {name: source.options.get(name, name) for name in fields}
    items = items_of(read_table(source), columns, source.options.get("label", "label"))
    words = _words(source, sorted({item.label for item in items}))
    return Task(source.text, items, words, _template(source) or TEMPLATES[fields])


def _template(source: Source) -> str:
    return source.options.get("template", "").replace("\\n", "\n")


def _words(source: Source, labels: Sequence[str]) -> dict[str, str]:
    """Label words in the order in which ``words=`` names them, else the labels themselves."""
    words = source.options.get("words", "")
    if not words:
        return {label: label for label in labels}
    # A label begins a pair only at the start or after a comma, so that words may hold commas and colons.
    known = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    starts = list(re.finditer(rf"(?:^|,)\s*({known})\s*:", words))
    ends = [start.start() for start in starts[1:]] + [len(words)] * bool(starts)
    pairs = [(start[1], words[start.end() : end].strip()) for start, end in zip(starts, ends, strict=True)]
    named = [label for label, _ in pairs]
    if sorted(named) != sorted(labels) or starts[0].start() or not all(word for _, word in pairs):
        raise SourceError(
            f"words={words!r} of {source.text!r} gives words to the labels {named}",
            expected=f"LABEL:WORD for each of {list(labels)}, between commas",
            cure="write words=" + ",".join(f"{label}:WORD" for label in labels),
        )
    return dict(pairs)
