"""What a picture becomes, against the library that the model comes from."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

import deadweight as dw
from deadweight.errors import InputError, SourceError
from deadweight.models import set_origin
from deadweight.models.preprocessing import keep_settings, settings_of
from deadweight.models.transform import GuessedPreprocessing, preparation

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 26, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((260, 300), Image.Resampling.BICUBIC)


def saved(folder, processor=None, **config):
    settings = transformers.ViTConfig(**{"image_size": 48, "patch_size": 16} | SMALL | config)
    transformers.ViTForImageClassification(settings).save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return f"hf:{folder}"


PROCESSORS = {
    "as it is": transformers.ViTImageProcessor(),
    "no normalisation": transformers.ViTImageProcessor(do_normalize=False),
    "another scale": transformers.ViTImageProcessor(rescale_factor=1 / 127.5, do_normalize=False),
    "no rescaling": transformers.ViTImageProcessor(do_rescale=False, do_normalize=False),
    "another resampling": transformers.ViTImageProcessor(resample=Image.Resampling.LANCZOS),
    "no resizing": transformers.ViTImageProcessor(do_resize=False),
    "shorter side and crop": transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 48, "width": 40}
    ),
    "resized beyond the crop": transformers.DeiTImageProcessor(),
    "shorter side alone": transformers.ViTImageProcessor(size={"shortest_edge": 40}),
    "an offset": transformers.EfficientNetImageProcessor(rescale_offset=True),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_transformers_models_get_their_own_image_processor_to_the_last_bit(tmp_path, picture, case):
    source = saved(tmp_path / "a@b#c", PROCESSORS[case])
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path / "a@b#c")
    ours = dw.transform(dw.load(source))
    expected = theirs(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ours(picture), expected)
    assert torch.equal(ours.finish(ours.place(picture)), expected)
    if case not in ("an offset", "no resizing"):  # training augments what has its size already, where it can be split
        assert ours.place(picture).size == (expected.shape[2], expected.shape[1]) != picture.size
    assert not ours.guess


def test_a_grey_model_of_transformers_gets_grey_pictures(tmp_path, picture):
    processor = transformers.ViTImageProcessor(image_mean=[0.4], image_std=[0.2], size={"height": 48, "width": 48})
    ours = dw.transform(dw.load(saved(tmp_path, processor, num_channels=1)))(picture)
    assert torch.equal(ours, processor(picture.convert("L"), return_tensors="pt")["pixel_values"][0])


def test_a_timm_model_inside_transformers(tmp_path, picture):
    stated = {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.4, 0.4], "crop_pct": 0.8}
    config = transformers.TimmWrapperConfig(
        architecture="test_vit", num_labels=5, pretrained_cfg=stated | {"interpolation": "bilinear"}
    )
    transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)(picture)["pixel_values"][0]
    assert torch.equal(dw.transform(dw.load(f"hf:{tmp_path}"))(picture), theirs)


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"crop_mode": "squash", "crop_pct": 0.8},
        {"crop_mode": "border", "interpolation": "bilinear"},
        {"interpolation": "nearest", "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 0.5)},
    ],
    ids=str,
)
def test_timm_models_get_timms_own_transform(picture, stated):
    model = dw.load("timm:test_vit?pretrained=false")
    model.pretrained_cfg = {**model.pretrained_cfg, **stated}
    theirs = create_transform(**resolve_model_data_config(model), is_training=False)
    ours = dw.transform(model)
    assert torch.equal(ours(picture), theirs(picture))
    assert torch.equal(ours.finish(ours.place(picture)), theirs(picture))


def test_a_size_a_timm_model_was_built_for_is_the_size_of_its_pictures(picture):
    model = dw.load("timm:test_vit?pretrained=false", img_size=(32, 48))
    theirs = create_transform(**resolve_model_data_config(model) | {"input_size": (3, 32, 48)}, is_training=False)
    assert torch.equal(dw.transform(model)(picture), theirs(picture))


def test_a_torchvision_model_of_another_size_keeps_the_published_share(picture):
    with pytest.warns(GuessedPreprocessing, match="publishes them for 224"):
        ours = dw.transform(dw.load("torchvision:vit_b_16?pretrained=false", image_size=112))
    theirs = torchvision.transforms._presets.ImageClassification(crop_size=112, resize_size=128)
    assert torch.equal(ours(picture), theirs(picture))


OPTIONS = "mean=0.1,0.2,0.3&std=0.5&crop_pct=0.8&interpolation=bilinear&size=64"
CHOSEN = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "crop_pct": 0.8, "interpolation": "bilinear"}


def test_options_go_before_what_timm_states(picture):
    ours = dw.transform(dw.load(f"timm:test_vit?pretrained=false&{OPTIONS}"))
    theirs = create_transform(input_size=(3, 64, 64), crop_mode="center", is_training=False, **CHOSEN)
    assert torch.equal(ours(picture), theirs(picture))
    by_hand = dw.transform(dw.load("timm:test_vit?pretrained=false"), size=64, **CHOSEN)
    assert torch.equal(by_hand(picture), ours(picture))
    assert str(ours) == "64 × 64 pixels: resized to 80 (bilinear), cropped at the centre; mean 0.1, 0.2, 0.3, std 0.5"


def test_options_go_before_what_torchvision_publishes(picture):
    ours = dw.transform(dw.load("torchvision:vit_b_16?pretrained=false"), size=64, **CHOSEN)
    theirs = torchvision.transforms._presets.ImageClassification(
        crop_size=64, resize_size=80, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)
    )
    assert torch.equal(ours(picture), theirs(picture))


@pytest.mark.parametrize(
    ("processor", "options", "expected"),
    [
        (
            transformers.ViTImageProcessor(do_normalize=False),
            OPTIONS,
            transformers.BitImageProcessor(
                size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, resample=2,
                image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5],
            ),
        ),
        (transformers.ViTImageProcessor(), "size=40,56", transformers.ViTImageProcessor(size=(40, 56))),
        (
            transformers.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
            "size=112",
            transformers.BitImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 112, "width": 112}),
        ),
    ],
    ids=["all of them", "size alone", "size, with the share of the crop kept"],
)  # fmt: skip
def test_options_go_before_what_an_image_processor_says(tmp_path, picture, processor, options, expected):
    ours = dw.transform(dw.load(f"{saved(tmp_path, processor)}?{options}"))
    assert torch.equal(ours(picture), expected(picture, return_tensors="pt")["pixel_values"][0])


def test_what_nothing_states_is_guessed_and_said(tmp_path, picture):
    with pytest.warns(GuessedPreprocessing, match=r"no preprocessor_config.json beside its weights: .*48 × 48"):
        ours = dw.transform(dw.load(saved(tmp_path)))
    usual = transformers.ViTImageProcessor(size={"height": 48, "width": 48})
    assert torch.equal(ours(picture), usual(picture, return_tensors="pt")["pixel_values"][0])
    assert "guessed: there is no preprocessor_config.json" in str(ours)
    with pytest.warns(GuessedPreprocessing, match="not for these weights"):
        dw.transform(timm.create_model("test_vit"))
    with pytest.warns(GuessedPreprocessing, match="nothing says how"):
        dw.transform(nn.Sequential(nn.Conv2d(3, 8, 16, 16)))


def test_what_a_checkpoint_states_is_no_guess(picture):
    other = timm.create_model("test_vit", pretrained_cfg_overlay={"crop_pct": 0.5, "mean": [0.1, 0.2, 0.3]})
    plain = timm.create_model("test_vit")
    for model in (other, plain):
        set_origin(model, "timm:test_vit?checkpoint=best.pth.tar")
    theirs = create_transform(**resolve_model_data_config(other), is_training=False)
    assert torch.equal(dw.transform(other)(picture), theirs(picture))
    with pytest.warns(GuessedPreprocessing, match="not for these weights"):
        dw.transform(plain)


def test_what_somebody_states_is_no_guess(tmp_path):
    assert not dw.transform(dw.load(f"{saved(tmp_path)}?{OPTIONS}")).guess


def test_settings_are_json_and_say_everything(tmp_path, picture):
    for source in (
        saved(tmp_path, PROCESSORS["shorter side and crop"]),
        "timm:test_vit?pretrained=false",
        "torchvision:vit_b_16?pretrained=false",
    ):
        ours = dw.transform(dw.load(source))
        again = preparation(json.loads(json.dumps(ours.settings)), 3)
        assert torch.equal(again(picture), ours(picture))
        assert str(again) == str(ours)
    other = nn.Sequential(nn.Conv2d(3, 8, 16, 16))
    keep_settings(other, ours.settings)
    assert settings_of(other) == (ours.settings, "")
    assert torch.equal(dw.transform(other)(picture), ours(picture))


LINES = {
    "as it is": "ViTImageProcessor: resized to 224 × 224 (bilinear), in [0, 1], mean 0.5, std 0.5",
    "another scale": "ViTImageProcessor: resized to 224 × 224 (bilinear), times 0.00784314",
    "no resizing": "ViTImageProcessor: in [0, 1], mean 0.5, std 0.5",
}


@pytest.mark.parametrize("case", LINES)
def test_one_line_says_what_an_image_processor_does(tmp_path, case):
    assert str(dw.transform(dw.load(saved(tmp_path, PROCESSORS[case])))) == LINES[case]


REFUSED = {
    "mean=0.5,0.5": (InputError, "3 between commas"),
    "std=0": (InputError, "above 0"),
    "std=x": (SourceError, "divided by"),
    "crop_pct=1.2": (InputError, "at most 1"),
    "interpolation=cubic": (InputError, "bicubic"),
    "size=0": (InputError, "one pixel"),
    "size=1,2,3": (SourceError, "HEIGHT,WIDTH"),
    "mean=nan": (InputError, "3 between commas"),
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_out_of_range_are_refused(option):
    kind, message = REFUSED[option]
    with pytest.raises(kind, match=message):
        dw.transform(dw.load(f"timm:test_vit?pretrained=false&{option}"))


def test_a_size_that_the_processor_has_no_place_for_is_refused(tmp_path):
    source = saved(tmp_path, transformers.ViTImageProcessor(do_resize=False))
    with pytest.raises(InputError, match="are not resized to 40 × 40"):
        dw.transform(dw.load(source), size=40)
    source = saved(tmp_path, PROCESSORS["shorter side alone"])
    with pytest.raises(InputError, match="whose size is"):
        dw.transform(dw.load(source), size=40)


def test_a_damaged_processor_is_no_missing_one(tmp_path):
    source = saved(tmp_path, PROCESSORS["as it is"])
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "No such thing"')
    with pytest.raises(SourceError, match=r"preprocessor_config\.json beside"):
        dw.transform(dw.load(source))
