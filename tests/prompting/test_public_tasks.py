"""The declared sets of the hub, with sets of the same columns and classes in the place of the real ones."""

import datasets
import pytest

from deadweight.errors import SourceError
from deadweight.prompting import load_task
from deadweight.prompting.public_tasks import PUBLIC

# Columns and class names as the sets' own cards give them.
CARDS = {
    "stanfordnlp/sst2": (["sentence"], "label", ["negative", "positive"]),
    "nyu-mll/glue:sst2": (["sentence"], "label", ["negative", "positive"]),
    "nyu-mll/glue:qqp": (["question1", "question2"], "label", ["not_duplicate", "duplicate"]),
    "nyu-mll/glue:mrpc": (["sentence1", "sentence2"], "label", ["not_equivalent", "equivalent"]),
    "nyu-mll/glue:rte": (["sentence1", "sentence2"], "label", ["entailment", "not_entailment"]),
    "nyu-mll/glue:mnli": (["premise", "hypothesis"], "label", ["entailment", "neutral", "contradiction"]),
    "nyu-mll/glue:cola": (["sentence"], "label", ["unacceptable", "acceptable"]),
    "fancyzhx/ag_news": (["text"], "label", ["World", "Sports", "Business", "Sci/Tech"]),
    "CogComp/trec": (["text"], "coarse_label", ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]),
    "SetFit/subj": (["text"], "label_text", None),
    "dair-ai/emotion": (["text"], "label", ["sadness", "joy", "love", "anger", "fear", "surprise"]),
}


@pytest.fixture
def hub(monkeypatch):
    """Stands for the hub: every declared set, four rows a class, and what was asked of it."""
    asked = []

    def load_dataset(name, config, revision):
        asked.append((name, config, revision))
        texts, label, names = CARDS[f"{name}:{config}" if config else name]
        size = 4 * len(names or ["objective", "subjective"])
        columns = {text: [f"{text} {row}" for row in range(size)] for text in texts}
        columns[label] = [row % len(names) for row in range(size)] if names else ["objective", "subjective"] * 4
        features = {text: datasets.Value("string") for text in texts}
        features[label] = datasets.ClassLabel(names=names) if names else datasets.Value("string")
        made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        known = PUBLIC[f"{name}:{config}" if config else name]
        return datasets.DatasetDict({known.split: made, "train": made.select(range(size // 2))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_every_declared_set_has_a_card():
    assert set(CARDS) == set(PUBLIC)


@pytest.mark.parametrize("name", CARDS)
def test_a_declared_set_is_a_task(hub, name):
    task = load_task(f"hf:{name}")
    _, _, names = CARDS[name]
    assert set(task.labels) == set(names or ["objective", "subjective"])
    assert {item.label for item in task.items} == set(task.labels)
    assert len(task.items) == 4 * len(task.labels)
    assert task.ask(task.items[0]).count(" 0") == len(CARDS[name][0])


def test_revision_and_split_reach_the_hub(hub):
    task = load_task("hf:nyu-mll/glue:qqp@abc#train")
    assert hub == [("nyu-mll/glue", "qqp", "abc")]
    assert len(task.items) == 4
    load_task("hf:CogComp/trec")
    assert hub[-1] == ("CogComp/trec", None, "refs/convert/parquet")


def test_words_and_template_may_be_others(hub):
    task = load_task("hf:stanfordnlp/sst2?words=positive:good,negative:bad&template=Say {text}\\nIt is:")
    assert task.labels == ("positive", "negative")
    assert task.prompt([], task.items[0]) + task.answer("negative") == "Say sentence 0\nIt is: bad"


def test_any_other_set_by_naming_its_columns(hub):
    task = load_task("hf:fancyzhx/ag_news#test?text=text&label=label")
    assert task.answer("Sci/Tech") == " Sci/Tech"
    with pytest.raises(SourceError, match="no column 'body'"):
        load_task("hf:fancyzhx/ag_news?text=body&label=label")


def test_an_unknown_split_names_those_there_are(hub):
    with pytest.raises(SourceError, match="known: validation, train"):
        load_task("hf:stanfordnlp/sst2#dev")


def test_rows_without_a_text_are_left_out_of_public_sets(monkeypatch):
    features = datasets.Features({"sentence": datasets.Value("string"),
                                  "label": datasets.ClassLabel(names=["negative", "positive"])})  # fmt: skip
    rows = {"sentence": ["a", None, "b", "c"], "label": [0, 1, 1, -1]}
    made = datasets.DatasetDict({"validation": datasets.Dataset.from_dict(rows, features=features)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    assert [item.fields["text"] for item in load_task("hf:stanfordnlp/sst2").items] == ["a", "b"]
    with pytest.raises(SourceError, match="row 2"):
        load_task("hf:stanfordnlp/sst2?text=sentence&label=label")


def test_without_a_network_both_ways_out_are_named(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(SourceError, match="csv:"):
        load_task("hf:stanfordnlp/sst2")
