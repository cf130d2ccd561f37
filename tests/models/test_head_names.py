"""What a head's outputs are called, against the lists that the libraries ship."""

import pytest
import timm
import torchvision
import transformers
from timm.data import ImageNetInfo

import deadweight as dw
from deadweight.data.classes import ClassNames, HeadNames, outputs_of
from deadweight.models.head_names import head_names

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def classifier(names):
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
        **SMALL,
    )
    return transformers.ViTForImageClassification(config)


def test_transformers_says_them_itself():
    assert head_names(classifier(["zebra", "box turtle"])) == ((("zebra",), ("box turtle",)), True)
    assert head_names(classifier(["LABEL_0", "LABEL_1"])) == (((), ()), False)
    assert head_names(classifier([str(number) for number in range(11)]))[0][10] == ("10",)


def test_a_model_without_a_head_has_none():
    assert head_names(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **SMALL))) is None
    assert head_names(timm.create_model("test_vit", num_classes=0)) is None


def test_timm_says_them_in_its_configuration():
    model = timm.create_model("test_vit", num_classes=2)
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": {"1": "cow", "0": "ant"}}
    assert head_names(model) == ((("ant",), ("cow",)), True)


def test_a_thousand_outputs_of_timm_are_taken_for_imagenets():
    names, sure = head_names(dw.load("timm:test_vit?pretrained=false"))
    info = ImageNetInfo("imagenet-1k")
    assert not sure
    assert outputs_of(info.label_names(), HeadNames(names, sure)) == (list(range(1000)), "")
    lemmas = info.label_descriptions()
    alone = [number for number, lemma in enumerate(lemmas) if lemmas.count(lemma) == 1]
    assert outputs_of([lemmas[number] for number in reversed(alone)], HeadNames(names, sure))[0] == alone[::-1]
    some = ClassNames(sorted(["n01440764", "n02102040", "n02979186", "n03000684"]))  # tench, springer, player, saw
    assert outputs_of(some, HeadNames(names, sure))[0] == [0, 217, 482, 491]


@pytest.mark.parametrize("kind", ["transformers", "torchvision"])
def test_folders_named_by_synsets_find_imagenets_classes(kind):
    info = ImageNetInfo("imagenet-1k")
    if kind == "transformers":
        found = head_names(classifier(info.label_descriptions()))
    else:
        found = head_names(dw.load("torchvision:vit_b_32?pretrained=false"))
        categories = torchvision.models.ViT_B_32_Weights.DEFAULT.meta["categories"]
        assert [names[0] for names in found[0]] == categories
    assert outputs_of(info.label_names()[::-1], HeadNames(*found))[0] == list(range(999, -1, -1))


def test_outputs_that_were_replaced_have_no_names():
    assert head_names(classifier(["zebra", "cow"]), 3) == (((), (), ()), False)
    assert head_names(dw.load("torchvision:vit_b_32?pretrained=false", num_classes=7)) == (((),) * 7, False)
