import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from deadweight.data import as_tensors, load_images
from deadweight.errors import SourceError

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(tmp_path):
    generator = np.random.default_rng(0)
    for name, count in (("cat", 6), ("dog", 10)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_the_digits_are_scikit_learns():
    data = load_images("embedded:digits")
    theirs = load_digits()
    images = torch.cat([as_tensors(data.train)[0], as_tensors(data.validation)[0]])
    labels = torch.cat([as_tensors(data.train)[1], as_tensors(data.validation)[1]])
    assert images.shape == (1797, 1, 8, 8)
    assert torch.equal(labels.bincount(), torch.from_numpy(theirs.target).bincount())
    ours = torch.sort((images.flatten(1) * 16).round().sum(1)).values
    assert torch.equal(ours, torch.sort(torch.from_numpy(theirs.images).flatten(1).sum(1)).values.float())


def test_every_class_is_held_out_in_its_share():
    data = load_images("embedded:digits")
    shares = as_tensors(data.validation)[1].bincount() / as_tensors(data.train)[1].bincount()
    assert torch.all((shares > 0.24) & (shares < 0.26))


def test_mnist_comes_with_its_package():
    data = load_images("embedded:mnist5k", limit=30)
    assert (len(data.train), len(data.validation), data.size) == (30, 30, (28, 28))
    assert torch.equal(as_tensors(data.train)[1].bincount(), torch.full((10,), 3))


def test_class_folders_are_split_without_overlap(folders):
    data = load_images(f"folder:{folders}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), data.channels, data.size) == (13, 3, 3, (32, 32))
    assert not set(data.train.indices) & set(data.validation.indices)


def test_train_and_val_folders_are_taken_as_they_are(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    (root / "train").symlink_to(folders)
    (root / "val" / "cat").mkdir(parents=True)
    (root / "val" / "dog").mkdir()
    for name in ("cat", "dog"):
        Image.new("L", (9, 9)).save(root / "val" / name / "x.png")
    data = load_images(f"folder:{root}")
    assert (len(data.train), len(data.validation)) == (16, 2)


def test_the_fingerprint_follows_the_content(folders):
    before = load_images(f"folder:{folders}").fingerprint
    assert load_images(f"folder:{folders}").fingerprint == before
    Image.new("RGB", (20, 24)).save(folders / "cat" / "0.png")
    assert load_images(f"folder:{folders}").fingerprint != before


def test_a_limit_takes_the_classes_in_turn_and_always_the_same(folders):
    first, second = (load_images(f"folder:{folders}", limit=4) for _ in range(2))
    assert as_tensors(first.train)[1].bincount().tolist() == [2, 2]
    assert first.train.indices == second.train.indices


def test_a_local_data_set_of_datasets_is_read(folders):
    data = load_images(f"hf:{folders}")
    assert (data.classes, len(data.train) + len(data.validation)) == (("cat", "dog"), 16)


def test_a_split_of_a_data_set_is_used_alone(folders, tmp_path):
    for part, keep in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for path in sorted((folders / name).iterdir())[:keep]:
                (tmp_path / part / name / path.name).write_bytes(path.read_bytes())
    whole, alone = load_images(f"hf:{tmp_path}"), load_images(f"hf:{tmp_path}#test")
    assert (len(whole.train), len(whole.validation)) == (12, 6)
    assert len(alone.train) + len(alone.validation) == 6
    with pytest.raises(SourceError, match="did you mean 'test'"):
        load_images(f"hf:{tmp_path}#tset")


def _empty_class(root):
    (root / "emu").mkdir()
    return "emu holds no images"


def _unreadable(root):
    (root / "cat" / "0.png").write_bytes((root / "cat" / "0.png").read_bytes()[:200])
    return r"1 of 16 images cannot be read: .*0\.png"


def _loose(root):
    for name in ("cat", "dog"):
        for path in (root / name).iterdir():
            path.rename(root / f"{name}{path.name}")
        (root / name).rmdir()
    return r"no class folders \(16 loose images\)"


@pytest.mark.parametrize("damage", [_empty_class, _unreadable, _loose], ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_refused_with_what_is_wrong(folders, damage):
    message = damage(folders)
    with pytest.raises(SourceError, match=message):
        load_images(f"folder:{folders}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("foldr:x", "did you mean 'folder'"),
        ("embedded:digit", "did you mean 'digits'"),
        ("folder:/nowhere/at/all", "no such folder"),
        ("hf:nowhere/at-all", "cannot be loaded"),
    ],
)
def test_an_unknown_source_is_refused(source, message):
    with pytest.raises(SourceError, match=message):
        load_images(source)
