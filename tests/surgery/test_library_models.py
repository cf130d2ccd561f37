"""A model of timm or torchvision that was built elsewhere is saved with the name and arguments that build it again."""

import json

import pytest
import timm
import torch
import torchvision

import deadweight as dw
from deadweight.errors import SourceError
from deadweight.models import input_shape
from deadweight.surgery.library_models import build, describe

pytestmark = pytest.mark.slow

OUTSIDE = {
    "by name": lambda: timm.create_model("test_vit"),
    "classes and size": lambda: timm.create_model("test_vit", num_classes=7, img_size=64),
    "shape": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=5
    ),
    "heads alone": lambda: timm.create_model("test_vit", num_heads=4),
    "pooled, without bias": lambda: timm.create_model("test_vit", global_pool="avg", qkv_bias=False),
    "grey": lambda: timm.create_model("test_vit", in_chans=1, num_classes=0),
    "thin": lambda: timm.create_model("test_vit", mlp_ratio=2.0),
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1, 1, 1), num_classes=3),
    "timm's class": lambda: timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=4
    ),
    "beit": lambda: timm.create_model("beit_base_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=2),
    "torchvision by name": lambda: torchvision.models.vit_b_32(num_classes=3, image_size=64),
    "torchvision's class": lambda: torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    ),
    "another of torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
}


@pytest.mark.parametrize("how", OUTSIDE)
def test_it_stands_on_its_own(how, tmp_path):
    torch.manual_seed(0)
    model = OUTSIDE[how]().eval()
    dw.save(model, tmp_path / "saved")
    again = dw.load(f"file:{tmp_path / 'saved'}")
    channels, height, width = input_shape(model)
    inputs = torch.randn(2, channels, height, width)
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    assert type(again) is type(model)
    dw.save(again, tmp_path / "twice")
    assert torch.equal(dw.load(f"file:{tmp_path / 'twice'}")(inputs), model(inputs))


def test_surgery_before_it_is_saved_changes_nothing_of_that(tmp_path):
    torch.manual_seed(0)
    model = dw.drop_blocks(dw.shallow_mlps(OUTSIDE["shape"]().eval(), 0.5), [1])
    dw.save(model, tmp_path / "saved")
    inputs = torch.randn(2, 3, 16, 16)
    assert torch.equal(dw.load(f"file:{tmp_path / 'saved'}")(inputs), model(inputs))
    assert 'dw.load("file:THIS_FOLDER")' in (tmp_path / "saved" / "README.md").read_text()


def test_its_preprocessing_is_kept(tmp_path):
    model = timm.create_model("test_vit", pretrained_cfg_overlay={"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5})
    dw.save(model, tmp_path / "saved")
    again = dw.load(f"file:{tmp_path / 'saved'}")
    assert list(again.pretrained_cfg["mean"]) == [0.1, 0.2, 0.3]
    assert again.pretrained_cfg["crop_pct"] == 0.5


def test_what_arguments_do_not_build_is_not_said_to_be():
    model = timm.create_model("test_vit")
    model.blocks[0].mlp.act = torch.nn.Tanh()
    assert describe(model) is None
    model = timm.create_model("test_vit")
    model.blocks[1].attn.scale = 3.0
    assert describe(model) is None
    assert describe(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    "description",
    [
        {"library": "timm", "name": "hf-hub:evil/model", "config": {}},
        {"library": "timm", "name": "test_vit", "config": {"checkpoint_path": "x"}},
        {"library": "timm", "class": "os.system", "config": {"command": "touch hacked"}},
        {"library": "timm", "class": "timm.models._factory.create_model", "config": {}},
        {"library": "timm", "class": "timm.models.vision_transformer.VisionTransformer", "config": {"evil": 1}},
        {"library": "torchvision", "name": "vit_b_16", "config": {"weights": "DEFAULT"}},
        {"library": "torchvision", "class": "torchvision.models.gone.Net", "config": {}},
    ],
    ids=str,
)
def test_a_description_builds_models_of_the_library_and_nothing_else(description):
    with pytest.raises(SourceError, match="does not build"):
        build(description)


def test_a_manifest_holds_no_path(tmp_path):
    dw.save(OUTSIDE["by name"](), tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "deadweight.json").read_text())
    assert manifest["architecture"]["name"] == "test_vit"
    assert manifest["origin"] is None
