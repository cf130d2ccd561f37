"""What counts as a picture of a class, in which part, and what its values become."""

import pathlib
import struct

import datasets
import numpy as np
import pytest
from PIL import Image

from deadweight.data import as_tensors, load_images
from deadweight.data.images import DataNote
from deadweight.errors import InputError, SourceError

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))


def fill(root, tree, picture=None):
    for path, count in tree.items():
        (root / path).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (picture or Image.new("RGB", (40, 40), (number, 50, 20))).save(root / path / f"{number}.png")
    return root


def of_one_kind(root, save):
    for name in "ab":
        (root / name).mkdir()
        for number in range(4):
            save(root / name / str(number))
    return f"folder:{root}"


def twelve_bits(path, values):
    """A TIFF of 12 bits a value, which Pillow reads and does not write: two values in three bytes."""
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8).tobytes()
    tags = {256: 32, 257: 32, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 32, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    pathlib.Path(f"{path}.tif").write_bytes(file)


def written(ending):
    return lambda path, values: Image.fromarray(values).save(f"{path}.{ending}")


DEEP = {  # the largest value there can be, the type it is stored in, and who writes it
    "16-bit PNG": (65535, np.uint16, written("png")),
    "16-bit TIFF": (65535, np.uint16, written("tif")),
    "big-endian TIFF": (65535, ">u2", written("tif")),
    "16-bit PGM": (65535, np.int32, written("pgm")),
    "12-bit TIFF": (4095, np.uint16, twelve_bits),
    "floats": (1, np.float32, written("tif")),
    "8 bits": (255, np.uint8, written("png")),
}


@pytest.mark.parametrize("kind", DEEP)
def test_pictures_of_every_depth_keep_black_and_white(tmp_path, kind):
    largest, stored, write = DEEP[kind]
    values = (RAMP * largest).astype(stored)
    image, _ = load_images(of_one_kind(tmp_path, lambda path: write(path, values))).train[0]
    expected = np.array([[round(float(value) * 255 / largest) for value in row] for row in values])
    assert np.array_equal(np.rint(image[0].numpy() * 255), expected)
    assert (float(image.min()), float(image.max())) == (0.0, 1.0)


def test_a_camera_of_12_bits_is_asked_about_and_scaled_when_told(tmp_path):
    source = of_one_kind(tmp_path, lambda path: Image.fromarray((RAMP * 4095).astype(np.uint16)).save(f"{path}.png"))
    with pytest.raises(SourceError, match=r"none of their values is above 4095(.|\n)*\?bits=12"):
        load_images(source)
    image, _ = load_images(f"{source}?bits=12").train[0]
    assert np.allclose(image.numpy(), np.rint(RAMP * 255) / 255, atol=1 / 255)
    image, _ = load_images(f"{source}?bits=16").train[0]
    assert np.allclose(image.numpy(), RAMP / 16, atol=1 / 255)
    for wrong in ("bits=8", "bits=12.5", "bits=twelve"):
        with pytest.raises(SourceError, match="9 to 16"):
            load_images(f"{source}?{wrong}")


UNSCALED = {
    "floats beyond 1": lambda path: Image.fromarray((RAMP * 300).astype(np.float32)).save(f"{path}.tif"),
    "not a number": lambda path: Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(f"{path}.tif"),
    "whole numbers of 32 bits": lambda path: Image.fromarray((RAMP * 9e5).astype(np.int32)).save(f"{path}.tif"),
}


@pytest.mark.parametrize("kind", UNSCALED)
def test_pictures_without_a_scale_are_refused_before_anything_is_computed(tmp_path, kind):
    with pytest.raises(SourceError, match=r"nothing says which value is white in 8 of 8 images: .*0\.tif"):
        load_images(of_one_kind(tmp_path, UNSCALED[kind]))


def test_a_palette_with_transparency_is_read_without_a_word(tmp_path):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = 255
    palette = Image.fromarray(pixels).quantize(8)
    image, _ = load_images(of_one_kind(tmp_path, lambda path: palette.save(f"{path}.png"))).train[0]
    assert np.array_equal(image.numpy() * 255, np.asarray(palette.convert("RGBA"))[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "copy",
    [
        ".ipynb_checkpoints/0-checkpoint.png", ".thumbnails/0.png", "@eaDir/0.png/thumb.png", "__MACOSX/0.png",
        "thumbs/0.png", "Thumbnails/0.png", "._0.png", ".hidden.png", "day/.cache/0.png",
    ],
)  # fmt: skip
def test_hidden_pictures_and_copies_for_other_programs_are_left_out_and_said(tmp_path, copy):
    fill(tmp_path, {"a": 6, "b": 6, "a/day": 2})
    (tmp_path / "a" / copy).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / copy).write_bytes(b"\0\5\x16\7")
    with pytest.warns(DataNote, match="1 hidden or thumbnail images are left out"):
        data = load_images(f"folder:{tmp_path}")
    assert len(data.train) + len(data.validation) == 14
    assert "left out" in data.notes[0]


def test_folders_of_other_programs_are_no_classes(tmp_path):
    fill(tmp_path, {"a": 4, "b": 4, "@eaDir": 3, "__MACOSX": 3, ".cache": 3})
    assert load_images(f"folder:{tmp_path}").classes == ("a", "b")


def two(first, second):
    return {f"{first}/cat": 8, f"{first}/dog": 8, f"{second}/cat": 3, f"{second}/dog": 3}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val"), ("train", "test"), ("training", "validation"), ("train", "dev"), ("Train", "Val"),
        ("training_set", "test_set"), ("train", "eval"), ("TRAIN", "VALID"), ("train-images", "test images"),
        ("trainset", "testset"),
    ],
    ids="-".join,
)  # fmt: skip
def test_the_parts_go_by_many_words(tmp_path, names):
    data = load_images(f"folder:{fill(tmp_path, two(*names))}")
    assert (data.classes, len(data.train), len(data.validation)) == (("cat", "dog"), 16, 6)


UNDERSTOOD = {
    "validation before test": ({**two("train", "val"), "test/cat": 2, "test/dog": 2}, "", ("cat", "dog"), 16, 6),
    "one part alone": ({"val/cat": 5, "val/dog": 5}, "", ("cat", "dog"), 8, 2),
    "a class that is called train": ({"train": 5, "tram": 5}, "", ("train", "tram"), 8, 2),
    "classes called train and test": ({"train": 5, "test": 5}, "", ("test", "train"), 8, 2),
    "parts of other names": (two("first", "second"), "?train=first&validation=second", ("cat", "dog"), 16, 6),
    "one part named": (two("train", "other"), "?train=other", ("cat", "dog"), 4, 2),
    "a class of folders called train": ({"train/steam": 5, "car": 5}, "?train=.", ("car", "train"), 8, 2),
    "papers beside the parts": ({**two("train", "val"), "docs": 0}, "", ("cat", "dog"), 16, 6),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_layouts_that_are_understood(tmp_path, case):
    tree, options, classes, train, held_out = UNDERSTOOD[case]
    data = load_images(f"folder:{fill(tmp_path, tree)}{options}")
    assert (data.classes, len(data.train), len(data.validation)) == (classes, train, held_out)


REFUSED = {
    "two words for one part": ({**two("train", "val"), "dev/cat": 2}, "", r"dev/, val/ beside train/"),
    "classes beside the parts": ({**two("train", "val"), "eel": 4}, "", r"eel/ beside train/, val/"),
    "a part that is not sorted": ({"train/cat": 4, "train/dog": 4, "val": 5}, "", r"no class folders \(5 loose images"),
    "classes only held out": ({**two("train", "val"), "val/eel": 2}, "", r"has classes that train/ lacks: eel"),
    "a part that is not there": (two("train", "val"), "?train=trian", "one of train, val"),
    "nothing to train on": (two("a", "b"), "?validation=b", "names no part to train on"),
    "one image a class": ({"a": 1, "b": 1}, "", "0 held out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layouts_that_are_refused(tmp_path, case):
    tree, options, message = REFUSED[case]
    with pytest.raises(SourceError, match=message):
        load_images(f"folder:{fill(tmp_path, tree)}{options}")


def test_a_class_that_the_held_out_part_lacks_is_said(tmp_path):
    fill(tmp_path, {**two("train", "val"), "train/eel": 2})
    with pytest.warns(DataNote, match="val/ has no images of the class eel"):
        data = load_images(f"folder:{tmp_path}")
    assert (data.classes, len(data.train), len(data.validation)) == (("cat", "dog", "eel"), 18, 6)


@pytest.mark.parametrize("limit", [0, -3, 2.5, True, "5"])
def test_a_limit_is_a_whole_number_of_at_least_one(limit):
    with pytest.raises(InputError, match=r"limit = .*\n.*at least one"):
        load_images("embedded:digits", limit=limit)


def stored(tmp_path, numbers, declared=("cat", "dog"), pixels=None):
    """A set on disk as `datasets` writes it; numbers it would refuse are written past its checks."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(declared))})
    reds = (np.full((8, 8, 3), row, np.uint8) for row in range(len(numbers)))
    pictures = [Image.fromarray(red if pixels is None else pixels) for red in reds]
    made = datasets.Dataset.from_dict(
        {"image": pictures, "label": numbers},
        features=datasets.Features({**features, "label": datasets.Value("int64")}),
    )
    made = made.with_format("arrow").map(lambda rows: rows)
    made._info.features = features
    made = made.with_format(None)
    made.to_parquet(tmp_path / "train.parquet")
    return f"hf:{tmp_path}"


def test_rows_of_the_hub_without_a_class_are_left_out_and_said(tmp_path):
    with pytest.warns(DataNote, match="2 rows without a class are left out"):
        data = load_images(stored(tmp_path, [0, -1, 1, None, 0, 1]))
    both = [as_tensors(part) for part in (data.train, data.validation)]
    found = [
        (int(label), round(float(image[0, 0, 0]) * 255)) for part in both for image, label in zip(*part, strict=True)
    ]
    assert sorted(found) == [(0, 0), (0, 4), (1, 2), (1, 5)]  # the red of each picture is its row


def test_a_number_of_the_hub_that_stands_for_no_class_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"row 3 of .* has the class 2 in column 'label'\n.*0 to 1"):
        load_images(stored(tmp_path, [0, 1, 2, 1]))


def test_deep_pictures_of_the_hub_are_scaled_too(tmp_path):
    deep = (RAMP * 65535).astype(np.uint16)
    image, _ = load_images(stored(tmp_path, [0, 0, 1, 1], pixels=deep)).train[0]
    assert np.allclose(image.numpy(), np.rint(RAMP * 255) / 255, atol=1 / 255)
