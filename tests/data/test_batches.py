"""What people give as loaders: dictionaries are read, and what is no loader is answered with how to make one."""

import re

import pytest
import torch
import transformers
from torch.utils.data import DataLoader, TensorDataset

import deadweight as dw
from deadweight.data import load_images
from deadweight.errors import InputError

IMAGES, LABELS = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return dw.load("embedded:digits-vit", depth=3)


WRONG = {
    "a tensor": (lambda: IMAGES, r"a tensor of shape \(12, 1, 8, 8\)", r"\[images\]"),
    "a data set": (lambda: TensorDataset(IMAGES, LABELS), "a data set, TensorDataset", "DataLoader"),
    "a set of ours": (lambda: load_images("embedded:digits", limit=20).train, "a data set, Pictures", "DataLoader"),
    "a dictionary": (lambda: {"image": IMAGES, "label": LABELS}, "one dictionary, of image, label", r"\[batch\]"),
    "a source": (lambda: "embedded:digits", "the text", "load_images"),
    "a number": (lambda: 3, "a int", "DataLoader"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_loader_is_answered_with_how_to_make_one(vit, what):
    make, given, cure = WRONG[what]
    calls = [lambda batches: dw.profile(vit, batches), lambda batches: dw.compress(vit, batches, parameters=0.8)]
    for call in calls[: 1 if what == "a tensor" else 2]:  # compress takes a tensor as one batch
        with pytest.raises(InputError, match=given) as refused:
            call(make())
        assert "{'image'" in refused.value.expected
        assert re.search(cure, refused.value.cure)


def test_dictionaries_of_image_and_label_are_pairs(vit):
    pairs = [(IMAGES[:6], LABELS[:6]), (IMAGES[6:], LABELS[6:])]
    named = [{"image": x, "label": y, "path": ["a.png"] * 6} for x, y in pairs]
    assert dw.profile(vit, named).table().equals(dw.profile(vit, pairs).table())
    loaded = DataLoader([{"image": x, "label": int(y)} for x, y in zip(IMAGES, LABELS, strict=True)], batch_size=6)
    assert dw.profile(vit, loaded).table().equals(dw.profile(vit, pairs).table())
    one, two = (dw.shallow_mlps(vit, 0.5, refit="layer", batches=batches) for batches in (named, pairs))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_what_a_hugging_face_model_is_called_with_keeps_its_names():
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        num_channels=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    named = [{"pixel_values": IMAGES, "labels": LABELS}]
    pairs = [(IMAGES, LABELS)]
    columns = ["ncm_accuracy", "influence"]
    assert dw.profile(model, named, probes=columns).table().equals(dw.profile(model, pairs, probes=columns).table())


def test_a_class_of_ones_own_that_holds_batches_is_a_loader(vit):
    class Held:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index > 1:
                raise IndexError
            return IMAGES[index * 6 : index * 6 + 6], LABELS[index * 6 : index * 6 + 6]

    pairs = [(IMAGES[:6], LABELS[:6]), (IMAGES[6:], LABELS[6:])]
    assert dw.profile(vit, Held()).table().equals(dw.profile(vit, pairs).table())
