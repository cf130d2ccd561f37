"""deadweight's names in timm: counts, creation, feature extraction, foreign scripts, moving averages."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3

import deadweight.timm
from deadweight.errors import InputError
from deadweight.loading import load, save
from deadweight.surgery import group_mlps, shallow_mlps

pytestmark = pytest.mark.slow

SMALL = {"img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 4, "num_classes": 5}


def tiny(variant, **options):
    torch.manual_seed(0)
    return timm.create_model(f"vit_tiny_patch16_224_{variant}", **{**SMALL, **options})


def plain(**options):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**SMALL, **options})


def count(model):
    return sum(weight.numel() for weight in model.parameters())


# arXiv 2512.01059, table 1 (in millions there); the large, small and tiny ones by the same arithmetic
COUNTS = {
    "vit_base_patch16_224_grouped": 58_233_064,
    "vit_base_patch16_224_shallow": 58_237_672,
    "vit_base_patch16_224_thin": 58_237_672,
}


@pytest.mark.parametrize(("name", "parameters"), COUNTS.items())
def test_the_papers_counts(name, parameters):
    assert count(timm.create_model(name)) == parameters


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_every_size_has_its_three_models(size):
    names = timm.list_models(f"vit_{size}_patch16_224_*")
    base = f"vit_{size}_patch16_224"
    assert {f"{base}_grouped", f"{base}_shallow", f"{base}_thin"} <= set(names)
    width, depth = deadweight.timm.SIZES[size]["embed_dim"], deadweight.timm.SIZES[size]["depth"]
    with torch.device("meta"):
        whole, thin = timm.create_model(base), timm.create_model(f"{base}_thin")
    assert count(whole) - count(thin) == depth * (2 * width * 2 * width + 2 * width)
    assert [(block.attn.num_heads, len(thin.blocks)) for block in thin.blocks[:1]] == [
        (whole.blocks[0].attn.num_heads, len(whole.blocks))
    ]


def test_nothing_is_registered_by_importing_deadweight():
    code = "import timm, deadweight, deadweight.surgery; assert not timm.list_models('*_grouped')"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("grouped", lambda: group_mlps(plain(), scale=2**-0.5)),
        ("shallow", lambda: shallow_mlps(plain(), 0.5)),
        ("thin", lambda: plain(mlp_ratio=2.0)),
    ],
)
def test_a_name_is_the_surgery(variant, expected):
    made, wanted = tiny(variant), expected()
    assert list(made.state_dict()) == list(wanted.state_dict())
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in made.state_dict().items())
    assert (made.blocks[0].mlp is made.blocks[1].mlp) is (variant == "grouped")
    assert made.head.out_features == 5


@pytest.mark.parametrize("variant", ["grouped", "shallow", "thin"])
def test_feature_extraction(variant):
    extractor = tiny(variant, features_only=True, out_indices=(0, 2))
    whole = tiny(variant).eval()
    images = torch.rand(2, 3, 32, 32)
    found = extractor.eval()(images)
    for feature, expected in zip(found, whole.forward_intermediates(images, indices=[0, 2])[1], strict=True):
        assert torch.equal(feature, expected)
    assert extractor.feature_info.channels() == [24, 24]
    assert timm.create_model(f"vit_tiny_patch16_224_{variant}", **{**SMALL, "num_classes": 0})(images).shape == (2, 24)


def test_input_size_mean_and_deviation_are_the_base_models():
    config = timm.data.resolve_model_data_config(timm.create_model("vit_small_patch16_224_thin"))
    assert config["input_size"] == (3, 224, 224)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    with pytest.raises(RuntimeError, match="pretrained weights"):
        timm.create_model("vit_small_patch16_224_grouped", pretrained=True)


@pytest.mark.parametrize("variant", ["grouped", "shallow", "thin"])
def test_a_checkpoint_of_the_cut_model_is_read_into_it(variant, tmp_path):
    trained = tiny(variant)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(torch.randn_like(weight))
    torch.save(trained.state_dict(), tmp_path / "best.pth")
    read = tiny(variant, checkpoint_path=str(tmp_path / "best.pth"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(read.eval()(images), trained.eval()(images))


def test_a_saved_one_needs_no_registration_to_be_loaded(tmp_path):
    models = {variant: tiny(variant).eval() for variant in deadweight.timm.VARIANTS}
    for variant, model in models.items():
        save(model, tmp_path / variant)
    code = (
        "import sys, torch, deadweight as dw\n"
        "for name in sys.argv[1:]: torch.save(dw.load('file:' + name)(torch.ones(1, 3, 32, 32)), name + '.pt')\n"
        "assert 'deadweight.timm' not in sys.modules\n"
        "dw.load('timm:vit_tiny_patch16_224_thin?pretrained=false')  # who asks for such a name gets it registered"
    )
    subprocess.run([sys.executable, "-c", code, *models], check=True, cwd=tmp_path)
    for variant, model in models.items():
        # another process may add up in another order
        torch.testing.assert_close(torch.load(tmp_path / f"{variant}.pt"), model(torch.ones(1, 3, 32, 32)))
        again = load(f"file:{tmp_path / variant}")
        assert (again.blocks[2].mlp is again.blocks[3].mlp) is (variant == "grouped")


SCRIPT = """
import argparse, sys
import neighbour
import torch, timm
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3

options = argparse.ArgumentParser()
options.add_argument("data"), options.add_argument("--model")
options = options.parse_args()
torch.manual_seed(0)
model = timm.create_model(options.model, num_classes=2, img_size=32, embed_dim=24, num_heads=2, depth=2)
config = resolve_data_config({"input_size": (3, 32, 32)}, model=model)
loader = create_loader(
    create_dataset("", root=options.data), input_size=config["input_size"], batch_size=4, is_training=True,
    num_workers=0, use_prefetcher=False, device=torch.device("cpu"), persistent_workers=False)
optimizer, average = create_optimizer_v2(model, opt="adamw", lr=1e-3), ModelEmaV3(model, decay=0.5)
for images, labels in loader:
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad(), loss.backward(), optimizer.step(), average.update(model)
assert __name__ == "__main__"
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
torch.nn.parallel.DistributedDataParallel(model, device_ids=[torch.device("cpu")])  # as timm's train.py calls it
torch.distributed.destroy_process_group()
print(sum(p.numel() for p in model.parameters()), sum(p.numel() for p in average.module.parameters()))
"""


def test_a_script_that_knows_nothing_of_deadweight_runs(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "neighbour.py").write_text("")
    command = [sys.executable, "-m", "deadweight.timm", str(tmp_path / "train.py"), str(tmp_path / "data")]
    told = subprocess.run(
        [*command, "--model", "vit_tiny_patch16_224_grouped"], check=True, capture_output=True, text=True
    )
    model = timm.create_model(
        "vit_tiny_patch16_224_grouped", num_classes=2, img_size=32, embed_dim=24, num_heads=2, depth=2
    )
    assert told.stdout.split() == [str(count(model))] * 2
    missing = subprocess.run([*command[:3], "nowhere.py"], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no script 'nowhere.py'")


def test_no_script_is_an_error():
    with pytest.raises(InputError, match="no script"):
        deadweight.timm.main([])


@pytest.mark.parametrize("kind", [ModelEma, ModelEmaV2, ModelEmaV3, lambda *a, **k: ModelEmaV3(*a, foreach=False, **k)],
                         ids=["v1", "v2", "v3", "v3 without foreach"])  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped as DDP wraps"])
def test_moving_averages_take_a_shared_tensor_once(kind, wrapped):
    model = tiny("grouped")
    average = kind(model, decay=0.75)
    held = average.ema if hasattr(average, "ema") else average.module
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    outside = torch.nn.ModuleDict({"module": model}) if wrapped and kind is not ModelEma else model
    average.update(outside)
    for name, value in held.state_dict().items():
        expected = before[name].double() * 0.75 + model.state_dict()[name].double() * 0.25
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7, msg=name)
    assert len(model.state_dict()) == len(before)
