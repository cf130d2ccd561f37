"""Source strings to tasks: embedded ones, files of one's own, public sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from deadweight.data.tables import read_table, table_of
from deadweight.errors import SourceError
from deadweight.own_code import call
from deadweight.prompting.embedded_tasks import TASKS
from deadweight.prompting.public_tasks import PUBLIC
from deadweight.prompting.tasks import Task, items_of
from deadweight.source import Source, check_options, parse_source
from deadweight.source_options import TASK_OPTIONS

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
    declared for the public ones `deadweight list tasks` shows and named like a file's for all others, or
    ``python:MODULE:FUNCTION``, which returns a task or rows ``[{"text": …, "label": …}, …]``. Two columns are
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
    (('sports', 'business'), True)
    """
    parsed = parse_source(source, example="csv:reviews.csv?text=body&label=stars")
    if parsed.scheme in TASK_OPTIONS:
        check_options(parsed, TASK_OPTIONS[parsed.scheme])
    if parsed.scheme == "python":
        return _own(parsed)
    if parsed.scheme == "embedded":
        return TASKS.get(parsed.name)()
    name, revision, split = parsed.repository
    if parsed.scheme == "hf" and name in PUBLIC and not set(parsed.options) - {"words", "template"}:
        return _public(parsed, name, revision, split)
    return _named(parsed)


def _own(source: Source) -> Task:
    """What a function of the user's own returns: a task, or rows whose columns are named like a file's."""
    found = call(source)
    if isinstance(found, Task):
        return found
    rows = list(found) if isinstance(found, Iterable) and not isinstance(found, str | Mapping) else [found]
    if wrong := [row for row in rows if not isinstance(row, Mapping)]:
        raise SourceError(
            f"{source.text!r} returned {'rows that are each' if len(rows) > 1 else ''} a {type(wrong[0]).__name__}",
            expected="a dw.Task, or rows as dictionaries: [{'text': …, 'label': …}, …]",
            cure="return one of them from the function",
        )
    table = table_of(source, rows)
    fields = next((pair for pair in PAIRS if set(pair) <= set(table.columns)), ("text",))
    items = items_of(table, {name: name for name in fields}, "label")
    return Task(source.text, items, {label: label for label in sorted({i.label for i in items})}, TEMPLATES[fields])


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
    extra = {"delimiter", "encoding"} if source.scheme == "csv" else set()
    check_options(source, {*fields, "label", "words", "template", *extra})  # text= beside premise= would not be read
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
