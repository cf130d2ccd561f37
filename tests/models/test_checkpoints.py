"""Weights from a file of the user's own: every form people have is read, and nothing else."""

import argparse
import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
import transformers
from torch import nn

import deadweight as dw
from deadweight.errors import SourceError
from deadweight.loading import check_language
from deadweight.models import origin
from deadweight.studies.frame.models import ModelRef, language_digest

pytestmark = pytest.mark.slow

NAME, CLASSES = "test_vit", 7
PLAIN = f"timm:{NAME}"


def trained(seed=0, **options):
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=CLASSES, **options).eval()


def same(model, state):
    ours = model.state_dict()
    return set(ours) == set(state) and all(torch.equal(ours[name], tensor) for name, tensor in state.items())


def wrapped(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def timm_script(model, averaged=None, **args):
    """What timm's train.py writes."""
    settings = dict(
        model=NAME, num_classes=CLASSES, img_size=None, in_chans=None, mean=[0.1, 0.2, 0.3], std=None, gp=None
    )
    content = {
        "epoch": 3, "arch": NAME, "state_dict": model.state_dict(), "optimizer": {"state": {0: torch.zeros(3)}},
        "version": 2, "args": argparse.Namespace(**settings | {"output": Path("out")} | args),
        "metric": np.float64(71.5),
    }  # fmt: skip
    return content | ({"state_dict_ema": averaged.state_dict()} if averaged is not None else {})


FORMS = {
    "weights.pth": lambda model, path: torch.save(model.state_dict(), path),
    "legacy.pt": lambda m, path: torch.save(m.state_dict(), path, _use_new_zipfile_serialization=False),
    "weights.bin": lambda model, path: torch.save({"model": model.state_dict(), "epoch": 1}, path),
    "script.pth.tar": lambda model, path: torch.save(timm_script(model), path),
    "data_parallel.pth": lambda m, path: torch.save({"state_dict": wrapped("module.", m.state_dict())}, path),
    "compiled.pth": lambda m, path: torch.save({"net": wrapped("module._orig_mod.", m.state_dict())}, path),
    "lightning.ckpt.pth": lambda m, path: torch.save(
        {"state_dict": wrapped("model.", m.state_dict()), "pytorch-lightning_version": "2"}, path
    ),
    "nested.pth": lambda m, path: torch.save({"model": {"state_dict": m.state_dict()}, "optimizer": {}}, path),
    "weights.safetensors": lambda model, path: safetensors.torch.save_file(model.state_dict(), path),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_and_the_classes_follow_from_the_head(name, tmp_path):
    model = trained()
    FORMS[name](model, tmp_path / name)
    assert same(dw.load(f"{PLAIN}?checkpoint={tmp_path / name}"), model.state_dict())


@pytest.mark.parametrize("library", ["safetensors", "torch"])
@pytest.mark.parametrize("named", ["index", "part", "folder"])
def test_parts_are_read_together_or_the_missing_one_is_named(library, named, tmp_path):
    model = trained()
    ending, save = {
        "safetensors": ("safetensors", lambda t, p: safetensors.torch.save_file(t, p)),
        "torch": ("bin", torch.save),
    }[library]
    names = list(model.state_dict())
    parts = [names[:9], names[9:]]
    files = [f"model-{number:05d}-of-00002.{ending}" for number in (1, 2)]
    for part, file in zip(parts, files, strict=True):
        save({name: model.state_dict()[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for part, file in zip(parts, files, strict=True) for name in part}}
    (tmp_path / f"model.{ending}.index.json").write_text(json.dumps(index))
    path = {"index": tmp_path / f"model.{ending}.index.json", "part": tmp_path / files[1], "folder": tmp_path}[named]
    assert same(dw.load(f"{PLAIN}?checkpoint={path}"), model.state_dict())
    (tmp_path / files[0]).unlink()
    with pytest.raises(SourceError, match="model-00001-of-00002"):
        dw.load(f"{PLAIN}?checkpoint={path}")


def test_averaged_weights_when_asked_for(tmp_path):
    model, averaged = trained(0), trained(1)
    path = tmp_path / "last.pth.tar"
    torch.save(timm_script(model, averaged), path)
    assert same(dw.load(f"{PLAIN}?checkpoint={path}"), model.state_dict())
    assert same(dw.load(f"{PLAIN}?checkpoint={path}&ema=true"), averaged.state_dict())
    references = {"model": model.state_dict(), "model_ema": wrapped("module.", averaged.state_dict())}
    references["model_ema"]["n_averaged"] = torch.tensor(5)
    torch.save(references, path)
    assert same(dw.load(f"{PLAIN}?checkpoint={path}&ema=true"), averaged.state_dict())
    torch.save(model.state_dict(), path)
    with pytest.raises(SourceError, match="no averaged weights"):
        dw.load(f"{PLAIN}?checkpoint={path}&ema=true")
    torch.save({"state_dict_ema": averaged.state_dict()}, path)
    with pytest.raises(SourceError, match="add ema=true"):
        dw.load(f"{PLAIN}?checkpoint={path}")


def test_a_file_of_timms_script_tells_its_architecture_and_preprocessing(tmp_path):
    model = trained(img_size=64)
    torch.save(timm_script(model, img_size=64), tmp_path / "best.pth.tar")
    found = dw.load(f"checkpoint:{tmp_path / 'best.pth.tar'}")
    assert same(found, model.state_dict())
    assert found.pretrained_cfg["mean"] == [0.1, 0.2, 0.3]
    inputs = torch.randn(1, 3, 64, 64)
    assert torch.equal(found(inputs), model(inputs))


def test_other_files_that_tell_their_architecture(tmp_path, language_folder):
    model = trained()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "a.safetensors", metadata={"arch": NAME})
    assert same(dw.load(f"checkpoint:{tmp_path / 'a.safetensors'}"), model.state_dict())
    hub = tmp_path / "hub"
    hub.mkdir()
    safetensors.torch.save_file(model.state_dict(), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({"architecture": NAME, "num_classes": CLASSES}))  # as timm writes them
    for place in (hub, hub / "model.safetensors"):
        assert same(dw.load(f"checkpoint:{place}"), model.state_dict())
    wanted = dw.load(f"hf:{language_folder}").state_dict()
    for place in (language_folder, language_folder / "model.safetensors"):
        assert same(dw.load(f"checkpoint:{place}"), wanted)
        assert same(dw.load_lm(f"checkpoint:{place}", device="cpu").model, wanted)
    dw.save(model, tmp_path / "saved")
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_small(num_classes=4)
    torch.save({"model": net.state_dict(), "args": argparse.Namespace(model="mobilenet_v3_small")}, tmp_path / "tv.pth")
    assert same(dw.load(f"checkpoint:{tmp_path / 'tv.pth'}"), net.state_dict())


def test_a_file_that_does_not_tell_is_refused_with_how_to_name_it(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "a.pth")
    with pytest.raises(SourceError, match=r"timm:NAME\?checkpoint="):
        dw.load(f"checkpoint:{tmp_path / 'a.pth'}")
    torch.save({"state_dict": trained().state_dict(), "arch": "mine"}, tmp_path / "a.pth")
    with pytest.raises(SourceError, match="architecture 'mine'"):
        dw.load(f"checkpoint:{tmp_path / 'a.pth'}")


def test_torchvision_and_hugging_face_alike(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_small(num_classes=4)
    torch.save({"model": wrapped("module.", net.state_dict())}, tmp_path / "net.pth")
    assert same(dw.load(f"torchvision:mobilenet_v3_small?checkpoint={tmp_path / 'net.pth'}"), net.state_dict())
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, patch_size=8)
    transformers.ViTConfig(**sizes, image_size=16, architectures=["ViTForImageClassification"]).save_pretrained(
        tmp_path
    )
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=32, num_labels=5))
    torch.save({"state_dict": wrapped("module.", vit.state_dict())}, tmp_path / "vit.pth")
    found = dw.load(f"hf:{tmp_path}?checkpoint={tmp_path / 'vit.pth'}")
    assert same(found, vit.state_dict())
    assert (found.config.num_labels, found.config.image_size) == (5, 32)


def test_a_language_model_with_weights_from_elsewhere(language_folder, tmp_path):
    torch.manual_seed(3)
    other = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(language_folder))
    torch.save({"state_dict": wrapped("module.", other.state_dict())}, tmp_path / "a+b.pth")
    text = f"hf:{language_folder}?checkpoint={tmp_path / 'a+b.pth'}"
    assert same(dw.load_lm(text, device="cpu").model, other.state_dict())
    before = language_digest(check_language(text))
    assert before != language_digest(check_language(f"hf:{language_folder}"))
    torch.save({"state_dict": {}}, tmp_path / "a+b.pth")
    assert before != language_digest(check_language(text))


def test_tied_weights_may_stand_once(tmp_path, language_folder):
    tied = transformers.AutoConfig.from_pretrained(language_folder, tie_word_embeddings=True)
    tied.save_pretrained(tmp_path)
    model = transformers.LlamaForCausalLM(tied)
    safetensors.torch.save_model(model, tmp_path / "once.safetensors")
    found = dw.load(f"hf:{tmp_path}?checkpoint={tmp_path / 'once.safetensors'}")
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_the_size_of_the_pictures_follows_from_the_positions(tmp_path):
    model = trained(img_size=64)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    found = dw.load(f"{PLAIN}?checkpoint={tmp_path / 'a.pth'}")
    assert same(found, model.state_dict())
    assert found(torch.zeros(1, 3, 64, 64)).shape == (1, CLASSES)


def test_published_files_in_another_layout_are_translated_as_timm_does(tmp_path):
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, embed_dim=12, depths=(1, 1, 1, 1)).eval()
    state = {
        re.sub(r"layers\.(\d)\.downsample", lambda at: f"layers.{int(at[1]) - 1}.downsample", name).replace(".fc.", ".")
        if "head" in name or "downsample" in name else name: tensor
        for name, tensor in model.state_dict().items()
    }  # fmt: skip
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)  # older files hold what is computed
    torch.save({"model": state}, tmp_path / "a.pth")
    text = f"timm:swin_tiny_patch4_window7_224?embed_dim=12&depths=1,1,1,1&checkpoint={tmp_path / 'a.pth'}"
    assert same(dw.load(text), model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc1.weight"), r"1 of the model's \d+ tensors are not in .*blocks\.1\.mlp\.fc1"),
        (lambda s: s.update(more=torch.zeros(2)), r"1 of the checkpoint's have no place in the model \(more\)"),
        (lambda s: s.update({"norm.bias": torch.zeros(3)}), r"1 differ in shape \(norm\.bias\)"),
        (lambda s: [s.pop("head.weight"), s.pop("head.bias")], r"num_classes=0"),
    ],
    ids=["missing", "unexpected", "shape", "no head"],
)
def test_what_does_not_match_is_counted_and_named(change, message, tmp_path):
    model = trained()
    state = dict(model.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(SourceError, match=message):
        dw.load(f"{PLAIN}?num_classes={CLASSES}&checkpoint={tmp_path / 'a.pth'}")
    with pytest.warns(UserWarning, match="left at random"):
        loose = dw.load(f"{PLAIN}?num_classes={CLASSES}&strict=false&checkpoint={tmp_path / 'a.pth'}")
    assert torch.equal(loose.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)


def test_a_backbone_without_a_head_is_built_without_one(tmp_path):
    state = {name: tensor for name, tensor in trained().state_dict().items() if not name.startswith("head.")}
    torch.save(state, tmp_path / "a.pth")
    assert same(dw.load(f"{PLAIN}?num_classes=0&checkpoint={tmp_path / 'a.pth'}"), state)


class _Trap:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def _torchscript(path, marker):
    (path).write_bytes(b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/code/x.py", "")
        archive.writestr("net/constants.pkl", pickle.dumps(1, protocol=2))
        archive.writestr("net/data.pkl", pickle.dumps(1, protocol=2))
        archive.writestr("net/version", "3")


def _cut(save, share):
    def write(path, marker):
        save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return write


BAD = {
    "a pickle of code": (lambda path, marker: path.write_bytes(pickle.dumps(_Trap(marker))), "holds code"),
    "an archive of code": (lambda path, marker: torch.save({"w": _Trap(marker)}, path), "holds code"),
    "a whole module": (lambda path, marker: torch.save(nn.Linear(2, 2), path), "holds code"),
    "a program": (_torchscript, "TorchScript program|no whole archive"),
    "another zip": (lambda p, m: zipfile.ZipFile(p, "w").writestr("x.txt", "x"), "no whole archive"),
    "a text": (lambda path, marker: path.write_text("hello" * 99), "no whole archive"),
    "nothing": (lambda path, marker: path.write_bytes(b""), "no whole archive"),
    "cut short": (_cut(lambda path: torch.save(trained().state_dict(), path), 0.5), "no whole archive"),
    "cut at the end": (_cut(lambda path: torch.save(trained().state_dict(), path), 0.99), "no whole archive"),
    "one tensor": (lambda path, marker: torch.save(torch.zeros(3), path), "holds a Tensor"),
    "no tensors": (lambda path, marker: torch.save({"epoch": 3}, path), "no weights of its own"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_plain_checkpoint_is_one_clear_error(what, tmp_path):
    marker = tmp_path / "hacked"
    write, message = BAD[what]
    write(tmp_path / "a.pth", marker)
    for text in (f"{PLAIN}?checkpoint={tmp_path / 'a.pth'}", f"checkpoint:{tmp_path / 'a.pth'}"):
        with pytest.raises(SourceError, match=message) as refused:
            dw.load(text)
        assert refused.value.cure
        assert not marker.exists()
    if message == "holds code":
        assert "safetensors" in refused.value.cure


def test_a_damaged_safetensors_file(tmp_path):
    safetensors.torch.save_file(trained().state_dict(), tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-9])
    with pytest.raises(SourceError, match="no whole archive"):
        dw.load(f"{PLAIN}?checkpoint={tmp_path / 'a.safetensors'}")
    with pytest.raises(SourceError, match="there is no file"):
        dw.load(f"{PLAIN}?checkpoint={tmp_path / 'b.safetensors'}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ema=true", "no checkpoint="),
        ("strict=false", "no checkpoint="),
        ("pretrained=true&checkpoint=a", "one or the"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(options, message):
    with pytest.raises(SourceError, match=message):
        dw.load(f"{PLAIN}?{options}")


def test_what_comes_from_a_checkpoint_is_trained_and_needs_it_no_more(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "a.pth")
    text = f"{PLAIN}?pretrained=false&checkpoint={tmp_path / 'a.pth'}"
    assert ModelRef(text).trained
    assert not ModelRef(f"{PLAIN}?pretrained=false").trained
    found = dw.load(text)
    assert origin(found) == {"source": PLAIN, "options": {"num_classes": CLASSES, "pretrained": False}}
    dw.save(found, tmp_path / "saved")
    (tmp_path / "a.pth").unlink()
    assert same(dw.load(f"file:{tmp_path / 'saved'}"), found.state_dict())
