import collections
import re

import pytest

from deadweight.errors import InputError, SourceError
from deadweight.prompting import TASKS, Item, Task, load_task, next_label, split_items

EMBEDDED = [
    "acceptability", "emotion", "nli", "paraphrase", "question_type", "sentiment", "subjectivity", "topic",
]  # fmt: skip


def runs_of_five(text):
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def test_the_embedded_tasks_are_registered():
    assert set(EMBEDDED) <= set(TASKS.names())


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_items_are_many_balanced_and_unlike_each_other(name):
    task = load_task(f"embedded:{name}")
    assert len(task.items) >= 120
    assert len(set(collections.Counter(item.label for item in task.items).values())) == 1
    assert len({item.normalised for item in task.items}) == len(task.items)
    assert {item.label for item in task.items} == set(task.labels)


def test_no_two_items_of_any_task_share_a_run_of_five_words():
    owner = {}
    for name in EMBEDDED:
        for at, item in enumerate(load_task(f"embedded:{name}").items):
            for text in item.fields.values():
                for run in runs_of_five(text):
                    assert owner.setdefault(run, (name, at)) == (name, at), run


@pytest.mark.parametrize("name", EMBEDDED)
def test_phi_is_a_permutation_without_fixed_points(name):
    task = load_task(f"embedded:{name}")
    assert sorted(task.phi.values()) == sorted(task.labels)
    assert all(task.phi[label] != label for label in task.labels)


def test_phi_of_nli_is_the_cycle_of_the_paper():
    assert load_task("embedded:nli").phi == {
        "entailment": "neutral",
        "neutral": "contradiction",
        "contradiction": "entailment",
    }


def test_phi_of_two_labels_is_the_swap():
    assert next_label(["a", "b"]) == {"a": "b", "b": "a"}


def test_a_prompt_is_demonstrations_and_a_question():
    good, bad = Item({"text": "so {nice}"}, "0"), Item({"text": "so bad"}, "1")
    task = Task("t", [good, bad], {"0": "good", "1": "bad"}, "T: {text}\nL:")
    assert task.prompt([(good, "1")], bad) == "T: so {nice}\nL: bad\n\nT: so bad\nL:"


CSV = "body,stars\nfine day,1\nawful day,0\ngreat night,1\npoor night,0\n"


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "r.csv").write_text(CSV)
    task = load_task(f"csv:{tmp_path}/r.csv?text=body&label=stars&words=0:bad,1:good&template=Say {{text}}\\nIt is:")
    assert task.labels == ("0", "1")
    assert task.ask(task.items[0]) == "Say fine day\nIt is:"
    assert task.answer("1") == " good"
    assert load_task(f"csv:{tmp_path}/r.csv?text=body&label=stars").answer("1") == " 1"


def test_two_columns_of_ones_own(tmp_path):
    (tmp_path / "p.csv").write_text("a,b,label\nx y,z,yes\nx,w,no\n")
    task = load_task(f"csv:{tmp_path}/p.csv?premise=a&hypothesis=b")
    assert task.ask(task.items[0]) == "Premise: x y\nHypothesis: z\nLabel:"


def test_the_order_of_a_file_changes_no_digest(tmp_path):
    head, *rows = CSV.splitlines()
    (tmp_path / "a.csv").write_text("\n".join([head, *rows]))
    (tmp_path / "b.csv").write_text("\n".join([head, *reversed(rows)]))
    one, two = (load_task(f"csv:{tmp_path}/{name}.csv?text=body&label=stars") for name in "ab")
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("0:bad,1:good", {"0": "bad", "1": "good"}),
        ("1:good,0:bad, really", {"1": "good", "0": "bad, really"}),
        (" 0: bad , 1: good ", {"0": "bad", "1": "good"}),
        ("0:a: b,1:c,d,e", {"0": "a: b", "1": "c,d,e"}),
    ],
)
def test_words_are_read_as_typed(tmp_path, words, expected):
    (tmp_path / "r.csv").write_text("text,label\na,1\nb,0\n")
    task = load_task(f"csv:{tmp_path}/r.csv?words={words}")
    assert dict(task.label_words) == expected
    assert task.labels == tuple(expected)


def test_the_longest_label_that_fits_is_meant(tmp_path):
    (tmp_path / "r.csv").write_text("text,label\na,a\nb,a:b\n")
    task = load_task(f"csv:{tmp_path}/r.csv?words=a:one,a:b:two")
    assert dict(task.label_words) == {"a": "one", "a:b": "two"}


def test_labels_with_a_comma_have_words_too(tmp_path):
    (tmp_path / "r.csv").write_text('text,label\na,"sci, tech"\nb,sci\n')
    task = load_task(f"csv:{tmp_path}/r.csv?words=sci:science,sci, tech:technology")
    assert dict(task.label_words) == {"sci": "science", "sci, tech": "technology"}


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("C++ & more: {text}\\nIs it good?", "C++ & more: a {b}\nIs it good?"),
        ('{{"text": "{text}", "label":', '{"text": "a {b}", "label":'),
        ("100% {text}?", "100% a {b}?"),
    ],
)
def test_a_template_is_read_as_typed(tmp_path, template, asked):
    (tmp_path / "r.csv").write_text("text,label\na {b},1\nb,0\n")
    task = load_task(f"csv:{tmp_path}/r.csv?template={template}")
    assert task.ask(task.items[0]) == asked


BRACES = [
    "Text: {text",
    "{text}} is",
    "{text.__class__}",
    "{text[0]}",
    "{0}",
    "{}",
    "{text:.2f}",
    "{text!r}",
    "{text:{x}}",
]


@pytest.mark.parametrize("template", BRACES)
def test_braces_that_name_no_field_are_refused_with_how_to_write_them(tmp_path, template):
    (tmp_path / "r.csv").write_text("text,label\na,1\nb,0\n")
    with pytest.raises(InputError, match=r"write \{FIELD\} .*\{\{ and \}\}"):
        load_task(f"csv:{tmp_path}/r.csv?template={template} x")


@pytest.mark.parametrize("limit", [0, -3, 2.5])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(InputError, match="at least one"):
        split_items(load_task("embedded:topic"), 0, limit)


REFUSED = {
    "a word left out": (CSV, "?text=body&label=stars&words=0:bad", "LABEL:WORD"),
    "an empty word": (CSV, "?text=body&label=stars&words=0:,1:good", "LABEL:WORD"),
    "two words for a label": (CSV, "?text=body&label=stars&words=0:bad,0:poor,1:good", "LABEL:WORD"),
    "something before the first label": (CSV, "?text=body&label=stars&words=so,0:bad,1:good", "LABEL:WORD"),
    "no word at all": (CSV, "?text=body&label=stars&words=good", "LABEL:WORD"),
    "a missing column": (CSV, "?text=nothing&label=stars", "body, stars"),
    "one class": ("text,label\na,1\nb,1\n", "", "two classes"),
    "an empty value": ("text,label\na,1\n ,0\n", "", "row 2"),
    "an unknown option": (CSV, "?text=body&label=stars&colour=red", "colour"),
    "words for other labels": (CSV, "?text=body&label=stars&words=0:bad,2:good", "LABEL:WORD"),
    "equal words": (CSV, "?text=body&label=stars&words=0:so,1:so", "same word"),
    "a template of other fields": (CSV, "?text=body&label=stars&template={title}:", "title"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    content, options, message = REFUSED[case]
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        load_task(f"csv:{tmp_path}/r.csv{options}")


def test_a_pair_that_is_asked_about_as_such(tmp_path):
    (tmp_path / "p.csv").write_text("q1,q2,label\nx y,z,dup\nx,w,new\n")
    task = load_task(f"csv:{tmp_path}/p.csv?first=q1&second=q2&words=dup:yes,new:no")
    assert task.ask(task.items[0]) == "First: x y\nSecond: z\nLabel:"
    assert task.answer("dup") == " yes"


def test_an_unknown_embedded_task_names_the_likely_one():
    with pytest.raises(InputError, match="sentiment"):
        load_task("embedded:sentimnt")


def test_a_source_that_is_no_table():
    with pytest.raises(SourceError, match="csv:"):
        load_task("folder:pictures")


WRONG = {
    "no items": ([], {"0": "a", "1": "b"}, {}, "no items"),
    "an unknown label": ([("x", "0"), ("y", "2")], {"0": "a", "1": "b"}, {}, "'2'"),
    "a fixed point": ([("x", "0"), ("y", "1")], {"0": "a", "1": "b"}, {"0": "0", "1": "1"}, "permutation"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_task_that_is_none(case):
    rows, words, phi, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        Task("t", [Item({"text": text}, label) for text, label in rows], words, "{text}", phi)
