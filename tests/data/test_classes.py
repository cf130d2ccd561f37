"""Whether a label means what the head means by it."""

import copy
import pickle
import re

import pytest
from PIL import Image

from deadweight.data import load_images
from deadweight.data.classes import ClassNames, HeadNames, aligned, outputs_of, reordered
from deadweight.errors import InputError, SourceError
from deadweight.source import parse_source


def head(*names, sure=True):
    return HeadNames(tuple((name,) if isinstance(name, str) else tuple(name) for name in names), sure)


def unnamed(count):
    return HeadNames(((),) * count, False)


TWELVE = [str(number) for number in range(12)]
AS_TEXT = sorted(TWELVE)  # 0, 1, 10, 11, 2, …
MATCHED = {  # classes as folders give them, the head, and for each class the number of its output
    "the same names in the same order": (["ant", "cow"], head("ant", "cow"), [0, 1]),
    "the same names in another order": (["ant", "cow", "zebra"], head("zebra", "ant", "cow"), [1, 2, 0]),
    "another case": (["ant", "cow", "zebra"], head("Zebra", "Ant", "COW"), [1, 2, 0]),
    "another spelling": (["box-turtle", "tabby_cat"], head("Tabby Cat", "box turtle"), [1, 0]),
    "one of several names": (["tench", "crane"], head(("crane, bird", "crane"), ("tench, Tinca", "tench")), [1, 0]),
    "a full name before a second one": (["crane", "hoist"], head(("hoist, crane", "hoist", "crane"), "crane"), [1, 0]),
    "some of the names": (["cow"], head("ant", "bee", "cow", "dog"), [2]),
    "numbers sorted as text": (AS_TEXT, head(*TWELVE), [int(name) for name in AS_TEXT]),
    "numbers, and nothing names the outputs": (AS_TEXT, unnamed(12), [int(name) for name in AS_TEXT]),
    "numbers counted from 1": (["1", "10", *map(str, range(2, 10))], unnamed(10), [0, 9, *range(1, 9)]),
    "numbers with zeros before them": (["00", "01", "02"], unnamed(3), [0, 1, 2]),
    "numbers within the names": (["10", "9"], head("class 9", "class 10"), [1, 0]),
    "numbers of outputs that have names": (["0", "1"], head("ant", "cow"), [0, 1]),
    "as many, and nothing names the outputs": (["ant", "cow"], unnamed(2), [0, 1]),
    "as many, and the names are only inferred": (["mine", "yours"], head("tench", "goldfish", sure=False), [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHED)
def test_classes_find_their_outputs(case):
    classes, outputs, places = MATCHED[case]
    assert outputs_of(classes, outputs)[0] == places
    names, onto = aligned(ClassNames(classes), outputs)
    assert (onto, len(names)) == (places, len(outputs))
    assert [names[place] for place in places] == classes
    assert outputs_of(names, outputs)[0] == list(range(len(outputs)))  # matched once and for all


REFUSED = {
    "more outputs": (["ant", "cow"], unnamed(1000), r"1000 classes apart and the images come in 2: ant, cow"),
    "fewer outputs": (["ant", "cow", "dog"], head("ant", "cow"), r"2 classes apart and the images come in 3"),
    "other names": (["chat", "chien"], head("cat", "dog"), r"chat, chien are not what the head calls"),
    "one other name": (["cat", "chien"], head("cat", "dog"), r"the classes chien are not"),
    "inferred names that fit in part": (["tench", "mine"], head("tench", "goldfish", sure=False), r"mine are not"),
    "a name of two outputs": (["crane", "hoist"], head("crane", "crane"), r"crane, hoist are not what the head calls"),
    "a name that two outputs go by": (["crane", "hoist"], head(("a", "crane"), ("hoist", "crane")), r"crane are not"),
    "two classes of one output": (["Cat", "cat"], head("cat", "dog"), r"are not what the head calls"),
    "numbers whose order nothing says": (["1", "10", "2"], unnamed(3), r"1, 10, 2 are numbers, other ones"),
    "numbers beyond the outputs": (["0", "5"], unnamed(3), r"3 classes apart"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_classes_that_are_not_the_heads_are_refused_with_the_cure(case):
    classes, outputs, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as refused:
        outputs_of(classes, outputs)
    assert "?classes=" in refused.value.cure


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("the same names in the same order", ""),
        ("the same names in another order", "by their names"),
        ("numbers, and nothing names the outputs", "by their numbers"),
        ("as many, and nothing names the outputs", "nothing says what the head's outputs stand for.*ant, cow"),
    ],
)
def test_what_is_not_plain_is_said(case, note):
    classes, outputs, _ = MATCHED[case]
    found = outputs_of(classes, outputs)[1]
    assert bool(found) == bool(note)
    assert re.search(note, found)


def test_an_order_that_is_told_goes_before_all(tmp_path):
    for name in ("chat", "chien", "vache"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    source = f"folder:{tmp_path}?classes=vache,chat,chien"
    names = ((("cow",), ("cat",), ("dog",)), True)
    for told in (load_images(source), load_images(source, head=names)):
        assert told.classes == ("vache", "chat", "chien")
        found = {told.classes[told.validation[at][1]] for at in range(3)}
        assert found == {"vache", "chat", "chien"}
        labels = [told.train.labels[at] for at in told.train.indices]
        assert sorted(labels) == [0] * 4 + [1] * 4 + [2] * 4
        assert labels[0] == 1  # the first folder, chat
    with pytest.raises(InputError, match="not what the head calls"):
        load_images(f"folder:{tmp_path}", head=names)
    other = load_images(f"folder:{tmp_path}?classes=none", head=(((),) * 1000, False))
    assert (other.classes, other.classes.order) == (("chat", "chien", "vache"), "other")


def test_labels_are_outputs_once_a_head_is_known(tmp_path):
    for place, name in enumerate(AS_TEXT):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (32, 32), (int(name), place, 0)).save(tmp_path / name / f"{number}.png")
    data = load_images(f"folder:{tmp_path}", head=(((),) * 12, False))
    assert data.classes == tuple(TWELVE)
    for part in (data.train, data.validation):
        for image, label in (part[at] for at in range(len(part))):
            assert round(float(image[0, 0, 0]) * 255) == label  # its red is the number of its folder
    assert data.notes == ("the classes are matched with the head's outputs by their numbers",)


@pytest.mark.parametrize("text", ["cat", "cat,cat", "cat,dog,eel", ""])
def test_an_order_names_every_class_once(text):
    with pytest.raises(SourceError, match="each of its 2 classes once"):
        reordered(["cat", "dog"], parse_source(f"folder:x?classes={text}"))


def test_names_keep_what_is_known_of_them():
    names = ClassNames(["a", "b"], "told", "why")
    for again in (pickle.loads(pickle.dumps(names)), copy.deepcopy(names)):
        assert (again, again.order, again.note) == (("a", "b"), "told", "why")
