"""What follows ``?`` in a source: typed, handed to the library's factory, or refused with what there is."""

from pathlib import Path

import pytest
import timm
import torch

import deadweight as dw
from deadweight.data import load_images, load_text
from deadweight.errors import SourceError
from deadweight.models.factories import timm_parameters
from deadweight.signatures import class_parameters
from deadweight.source import parse_source
from deadweight.source_options import FACTORY, IMAGE_OPTIONS, MODEL_OPTIONS, TASK_OPTIONS, TEXT_OPTIONS

READ = {"model": dw.load, "language": dw.load_lm, "images": load_images, "text": load_text, "task": dw.load_task}


@pytest.mark.parametrize(
    ("role", "source", "listed"),
    [
        ("model", "timm:vit_tiny_patch16_224?pretrained=false&checkpoint_path=x&num_classes=10", "num_classes"),
        ("model", "timm:test_vit?pretrained=false&bogus=3", "img_size"),
        ("model", "timm:deit_tiny_distilled_patch16_224?bogus=3", "num_classes"),
        ("model", "timm:vit_tiny_patch16_224_grouped?bogus=3", "pretrained"),
        ("model", "torchvision:vit_b_16?bogus=3", "image_size"),
        ("model", "hf:{folder}?bogus=3", "strict"),
        ("model", "embedded:digits-vit?bogus=3", "depth"),
        ("model", "embedded:smollm2-135m-instruct?bogus=3", "paths"),
        ("model", "gguf:{folder}/x.gguf?bogus=3", "paths"),
        ("model", "file:{folder}?bogus=3", "model"),
        ("language", "hf:{folder}?bogus=3", "strict"),
        ("language", "gguf:x.gguf?bogus=3", "paths"),
        ("language", "embedded:smollm2-135m-instruct?bogus=3", "paths"),
        ("images", "embedded:digits?bogus=3", "no option|one of"),
        ("images", "folder:{folder}?bogus=3", "no option|one of"),
        ("images", "hf:a/b?bogus=3", "no option|one of"),
        ("text", "embedded:stdlib?bogus=3", "no option|one of"),
        ("text", "text:{folder}?bogus=3", "no option|one of"),
        ("text", "hf:a/b?bogus=3", "no option|one of"),
        ("task", "embedded:topic?bogus=3", "no option|one of"),
        ("task", "csv:{folder}/x.csv?bogus=3", "label"),
        ("task", "jsonl:x?bogus=3", "label"),
        ("task", "parquet:x?bogus=3", "label"),
        ("task", "hf:stanfordnlp/sst2?bogus=3", "words"),
        ("task", "jsonl:x?premise=a&hypothesis=b&text=c", "premise"),
    ],
)
def test_an_option_that_nothing_reads_is_refused_with_those_there_are(role, source, listed, language_folder):
    with pytest.raises(SourceError, match="which nothing reads") as refused:
        READ[role](source.format(folder=language_folder))
    assert any(word in refused.value.expected for word in listed.split("|"))


def test_options_reach_timms_factory_with_their_types():
    text = "timm:test_vit?pretrained=false&num_classes=7&img_size=64&global_pool=avg&drop_rate=0.25&qkv_bias=false"
    ours = dw.load(text)
    theirs = timm.create_model(
        "test_vit", num_classes=7, img_size=64, global_pool="avg", drop_rate=0.25, qkv_bias=False
    )
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert ours.head_drop.p == 0.25
    assert ours.global_pool == "avg"
    assert ours(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_options_reach_the_other_factories(language_folder):
    assert dw.load("torchvision:vit_b_32?pretrained=false&num_classes=3&image_size=64").heads.head.out_features == 3
    assert len(dw.load("embedded:digits-vit?depth=2").blocks) == 2
    model = dw.load(f"hf:{language_folder}?pretrained=false&num_hidden_layers=1&attn_implementation=eager")
    assert len(model.model.layers) == 1
    assert model.config._attn_implementation == "eager"
    lm = dw.load_lm(f"hf:{language_folder}?attn_implementation=eager")
    assert lm.model.config._attn_implementation == "eager"
    with pytest.raises(SourceError, match=r"9 of the checkpoint's have no place in the model"):
        dw.load_lm(f"hf:{language_folder}?num_hidden_layers=1")


@pytest.mark.parametrize(
    ("option", "expected"),
    [("num_classes=ten", "a whole number"), ("global_pool=mean", "avg"), ("qkv_bias=3", "true or false")],
)
def test_a_value_of_another_type_is_refused(option, expected):
    with pytest.raises(SourceError) as refused:
        dw.load(f"timm:test_vit?pretrained=false&{option}")
    assert expected in refused.value.expected


def test_what_a_name_has_settled_is_refused_in_one_line():
    with pytest.raises(SourceError, match="patch_size"):
        dw.load("torchvision:vit_b_16?pretrained=false&patch_size=8")
    with pytest.raises(SourceError, match="num_heads=5"):
        dw.load("timm:test_vit?pretrained=false&num_heads=5")


def test_random_weights_of_a_language_model_when_asked_for(language_folder):
    trained = dw.load_lm(f"hf:{language_folder}").model.lm_head.weight
    torch.manual_seed(5)
    drawn = dw.load_lm(f"hf:{language_folder}?pretrained=false").model.lm_head.weight
    assert not torch.equal(trained, drawn)


def test_parameters_of_parents_are_taken_where_they_are_passed_on():
    found = timm_parameters(parse_source("timm:deit_tiny_distilled_patch16_224"))
    assert found["num_classes"] == (int,)

    class Child(torch.nn.Linear):
        def __init__(self, extra: bool = False):
            super().__init__(1, 1)

    assert class_parameters(Child) == {"extra": (bool,)}


def test_every_option_stands_in_the_documents_and_in_the_help():
    from deadweight.source_options import options_text

    page = (Path(__file__).parents[2] / "docs" / "reference" / "sources.md").read_text()
    for table in (MODEL_OPTIONS, IMAGE_OPTIONS, TEXT_OPTIONS, TASK_OPTIONS):
        for kind, own in table.items():
            assert f"`{kind}:" in page
            for name in own:
                assert f"`{name}=" in page, name
                assert f"{name}=" in options_text()
    assert all(about in options_text() for about in FACTORY.values())
