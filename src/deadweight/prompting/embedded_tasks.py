"""The tasks that ship with the package: how each asks, and the words it is answered with.

Their items are natural sentences written for this project, balanced over the classes, in ``data/tasks``. The kinds
are those of arXiv 2511.21038; templates and label words are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deadweight.data.tables import read_table
from deadweight.prompting.tasks import Task, items_of
from deadweight.registry import Registry
from deadweight.source import parse_source


@dataclass(frozen=True)
class Asking:
    """How a task is put to a model: the fields of its items, its template, and label -> label word."""

    fields: tuple[str, ...]
    template: str
    words: Mapping[str, str]


def _same(*labels: str) -> dict[str, str]:
    return {label: label for label in labels}


ASKING: Mapping[str, Asking] = {
    "sentiment": Asking(("text",), "Review: {text}\nSentiment:", _same("positive", "negative")),
    "topic": Asking(("text",), "Text: {text}\nTopic:", _same("sports", "business", "science", "music")),
    "question_type": Asking(
        ("text",), "Question: {text}\nThe answer is a:", _same("person", "place", "number", "description")
    ),
    "nli": Asking(
        ("premise", "hypothesis"),
        "{premise}\nIs it true that: {hypothesis}\nAnswer:",
        {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    ),
    "subjectivity": Asking(
        ("text",), "Statement: {text}\nThis is a:", {"subjective": "opinion", "objective": "fact"}
    ),
    "paraphrase": Asking(
        ("first", "second"), "{first}\n{second}\nDo both mean the same?", {"same": "yes", "different": "no"}
    ),
    "emotion": Asking(
        ("text",), "Message: {text}\nEmotion:", _same("sadness", "joy", "love", "anger", "fear", "surprise")
    ),
    "acceptability": Asking(
        ("text",), "Sentence: {text}\nGrammatical:", {"acceptable": "yes", "unacceptable": "no"}
    ),
}  # fmt: skip


def _builder(name: str) -> Callable[[], Task]:
    def build() -> Task:
        asking = ASKING[name]
        table = read_table(parse_source(f"embedded:{name}"))
        return Task(name, items_of(table, {one: one for one in asking.fields}, "label"), asking.words, asking.template)

    return build


TASKS: Registry[Callable[[], Task]] = Registry("task")
for _name in ASKING:
    TASKS.add(_name, _builder(_name))
