"""Prompts as classifiers: tasks, label maps, demonstrations, the prefix-sharing scorer, alignment metrics."""

from deadweight.prompting.classify import Answers, classify
from deadweight.prompting.demonstrations import CONDITIONS, Split, demonstrations, split_items
from deadweight.prompting.embedded_tasks import TASKS
from deadweight.prompting.frames import Setting, frame_prompts, frames
from deadweight.prompting.scorer import distinct_tokens, score_labels
from deadweight.prompting.task_sources import load_task
from deadweight.prompting.tasks import Item, Task, next_label

__all__ = [
    "CONDITIONS",
    "TASKS",
    "Answers",
    "Item",
    "Setting",
    "Split",
    "Task",
    "classify",
    "demonstrations",
    "distinct_tokens",
    "frame_prompts",
    "frames",
    "load_task",
    "next_label",
    "score_labels",
    "split_items",
]
