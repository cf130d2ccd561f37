"""Public classification sets of the Hugging Face hub as tasks: which split, which columns, which words.

The kinds are those of arXiv 2511.21038. Its templates and label words could not be seen; these are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deadweight.prompting.embedded_tasks import ASKING


@dataclass(frozen=True)
class Public:
    """A public set as a task.

    split:     the labelled split that is asked about.
    columns:   field of the template -> column of the set.
    label:     the label's column; class numbers are read as the names the set declares for them.
    template:  as :class:`Task` has it.
    words:     label as the set writes it -> label word.
    revision:  used unless the source names one; sets that come as a script are read from the hub's own Parquet copy,
               because `datasets` runs no scripts.
    """

    split: str
    columns: Mapping[str, str]
    label: str
    template: str
    words: Mapping[str, str]
    revision: str | None = None


_REVIEW = ASKING["sentiment"].template
_PAIR = ASKING["nli"].template
_SENTIMENT = {"negative": "negative", "positive": "positive"}
_QUESTIONS = {"ABBR": "abbreviation", "ENTY": "thing", "DESC": "description", "HUM": "person", "LOC": "place",
              "NUM": "number"}  # fmt: skip

# By "DATASET" or "DATASET:CONFIG".
PUBLIC: Mapping[str, Public] = {
    "stanfordnlp/sst2": Public("validation", {"text": "sentence"}, "label", _REVIEW, _SENTIMENT),
    "nyu-mll/glue:sst2": Public("validation", {"text": "sentence"}, "label", _REVIEW, _SENTIMENT),
    "nyu-mll/glue:qqp": Public(
        "validation", {"first": "question1", "second": "question2"}, "label", ASKING["paraphrase"].template,
        {"not_duplicate": "no", "duplicate": "yes"},
    ),
    "nyu-mll/glue:mrpc": Public(
        "validation", {"first": "sentence1", "second": "sentence2"}, "label", ASKING["paraphrase"].template,
        {"not_equivalent": "no", "equivalent": "yes"},
    ),
    "nyu-mll/glue:rte": Public(
        "validation", {"premise": "sentence1", "hypothesis": "sentence2"}, "label", _PAIR,
        {"entailment": "yes", "not_entailment": "no"},
    ),
    "nyu-mll/glue:mnli": Public(
        "validation_matched", {"premise": "premise", "hypothesis": "hypothesis"}, "label", _PAIR,
        {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    ),
    "nyu-mll/glue:cola": Public(
        "validation", {"text": "sentence"}, "label", ASKING["acceptability"].template,
        {"unacceptable": "no", "acceptable": "yes"},
    ),
    "fancyzhx/ag_news": Public(
        "test", {"text": "text"}, "label", ASKING["topic"].template,
        {"World": "world", "Sports": "sports", "Business": "business", "Sci/Tech": "science"},
    ),
    "CogComp/trec": Public(
        "test", {"text": "text"}, "coarse_label", ASKING["question_type"].template, _QUESTIONS,
        "refs/convert/parquet",
    ),
    "SetFit/subj": Public(
        "test", {"text": "text"}, "label_text", ASKING["subjectivity"].template,
        {"subjective": "opinion", "objective": "fact"},
    ),
    "dair-ai/emotion": Public(
        "test", {"text": "text"}, "label", ASKING["emotion"].template, ASKING["emotion"].words
    ),
}  # fmt: skip
