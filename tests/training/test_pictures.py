"""Augmented pictures, repeats and order: from the seed alone, whoever reads them."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler

from deadweight.data import load_images
from deadweight.errors import InputError
from deadweight.loading import load
from deadweight.models import transform
from deadweight.training import Feed, Recipe, train
from deadweight.training.feed import chunked
from deadweight.training.pictures import augmented
from deadweight.training.randomness import epoch_order

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=2, warmup_epochs=0, batch_size=8, augment="rand-m9-mstd0.5-inc1", crop=(0.3, 1.0), flip=0.5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name in ("bird", "cat"):
        (root / name).mkdir()
        for number in range(10):
            Image.fromarray(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return f"folder:{root}"


@pytest.mark.parametrize("images", [7, 256, 300])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("processes", [1, 2])
def test_repeats_are_timms(images, repeats, processes, monkeypatch):
    """The permutation is ours, of the seed; what follows from it is what timm's sampler gives each process."""
    order, _ = epoch_order(images, seed=3, epoch=2, repeats=repeats)
    permutation, _ = epoch_order(images, seed=3, epoch=2)
    monkeypatch.setattr(torch, "randperm", lambda n, generator: permutation)
    for rank in range(processes):
        theirs = RepeatAugSampler(
            range(images), num_replicas=processes, rank=rank, num_repeats=repeats, selected_round=0
        )
        mine = order[rank::processes].tolist()
        assert mine == list(theirs)[: len(mine)]
        assert len(theirs) - len(mine) in (0, 1)  # timm fills up, ours drops the last


def test_each_epoch_and_seed_has_its_own_order_and_draws():
    orders = {
        (tuple(order.tolist()), tuple(draws.tolist()))
        for order, draws in (epoch_order(30, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1))
    }
    assert len(orders) == 4
    order, draws = epoch_order(30, seed=0, epoch=0, repeats=3)
    assert len(set(order.tolist())) == 10
    assert len(set(draws.tolist())) == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_the_images_do_not_depend_on_who_reads_them(workers, folder):
    data = load_images(folder)
    order, draws = epoch_order(len(data.train), seed=0, epoch=0, repeats=2)
    changed = augmented(data, RECIPE)
    read = Feed(data.train, CPU, augmented=changed, workers=workers).batches(chunked(order, 5), chunked(draws, 5))
    images, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
    for place in torch.randperm(len(order)).tolist():  # in another order, as after a restart
        alone, label = changed[int(order[place]), int(draws[place])]
        assert torch.equal(alone, images[place])
        assert label == int(labels[place])
    assert not torch.equal(images[0], images[1])  # two copies of one picture
    assert order[0] == order[1]


def test_held_out_images_are_never_changed(folder):
    data = load_images(folder)
    given, _ = next(Feed(data.validation, CPU).batches([torch.tensor([2])]))
    assert torch.equal(given[0], data.validation[2][0])


@pytest.mark.parametrize("crop", [None, (1.0, 1.0)], ids=["whole", "cropped"])
def test_pictures_are_prepared_as_the_model_wants_them(folder, crop):
    """timm's ViTs see the middle 90 % of a picture; a crop that has its size already is not cut again."""
    model = load("timm:vit_tiny_patch16_224?pretrained=false", img_size=32)
    data = load_images(folder, transform=transform(model))
    changed = augmented(data, dataclasses.replace(RECIPE, augment=None, crop=crop, flip=0.0 if crop else 1.0))
    image, _ = changed[3, 0]
    picture = data.train.open(data.train.indices[3]).convert("RGB")
    assert image.shape == (3, 32, 32)
    if crop is None:
        assert torch.equal(image, transform(model)(picture).flip(2))
    else:
        means = (image.mean((1, 2)), transform(model).finish(picture.resize((32, 32))).mean((1, 2)))
        torch.testing.assert_close(*means, atol=0.05, rtol=0)


def test_grey_pictures_stay_grey():
    data = load_images("embedded:digits", limit=20)
    image, _ = augmented(data, RECIPE)[0, 1]
    assert image.shape == (1, 8, 8)


def test_the_highest_magnitude_is_a_picture_too():
    """timm's Posterize then keeps no bit, which Pillow refuses."""
    data = load_images("embedded:digits", limit=20)
    changed = augmented(data, dataclasses.replace(RECIPE, augment="rand-m10-p1.0-n4-inc1"))
    assert all(changed[0, draw][0].isfinite().all() for draw in range(60))


def test_nothing_to_change_is_none(folder):
    assert augmented(load_images(folder), Recipe(epochs=1, warmup_epochs=0)) is None


def test_a_policy_timm_cannot_read(folder):
    with pytest.raises(InputError, match="rand-m9-q3"):
        augmented(load_images(folder), dataclasses.replace(RECIPE, augment="rand-m9-q3"))


def test_a_training_on_augmented_pictures_is_the_same_for_any_number_of_workers(folder):
    data = load_images(folder)
    curves = []
    for workers in (0, 2):
        torch.manual_seed(0)
        model = load("timm:vit_tiny_patch16_224?pretrained=false", img_size=32, num_classes=2, embed_dim=24, depth=2)
        curves.append(train(model, data, dataclasses.replace(RECIPE, repeats=2), workers=workers, device="cpu"))
    assert curves[0] == curves[1]


def test_a_set_of_datasets_trains(tmp_path):
    import datasets

    pictures = [Image.fromarray(np.full((8, 8, 3), 20 * number, dtype=np.uint8)) for number in range(12)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "bright"])})
    rows = {"image": pictures, "label": [int(number > 5) for number in range(12)]}
    made = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    data = load_images(f"hf:{tmp_path / 'set'}")
    model = load("timm:vit_tiny_patch16_224?pretrained=false", img_size=32, num_classes=2, embed_dim=24, depth=2)
    curves = train(model, data, dataclasses.replace(RECIPE, batch_size=4), device="cpu")
    assert len(curves.train_loss) == 2


def test_a_set_of_ones_own_that_gives_tensors_is_not_augmented(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def images():\n"
        "    return torch.utils.data.TensorDataset(torch.rand(12, 3, 8, 8), torch.arange(12) % 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="gives tensors"):
        augmented(load_images("python:./mine.py:images"), Recipe.mini(flip=0.5))
