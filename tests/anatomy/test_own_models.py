"""Models as people have them: inside wrappers, around torch's encoder, of a class of their own, no transformers."""

import copy
import sys

import pytest
import timm
import torch
import torch.distributed
import torchvision
import transformers
from torch import nn

import deadweight as dw
from deadweight.anatomy.paths import parse_paths
from deadweight.cli import main
from deadweight.errors import InputError

pytestmark = pytest.mark.slow

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CODE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer = nn.MultiheadAttention(width, 2, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.mixer(y, y, y, need_weights=False)[0]
        return x + self.ff(self.ln2(x))

class Mine(nn.Module):
    def __init__(self, depth: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.patchify = nn.Conv2d(3, 16, 4, 4)
        self.inner = nn.ModuleList(Block() for _ in range(depth))
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.patchify(x).flatten(2).transpose(1, 2)
        for layer in self.inner:
            x = layer(x)
        return self.out(x.mean(1))

def images(count: int = 40):
    torch.manual_seed(1)
    return torch.utils.data.TensorDataset(torch.randn(count, 3, 16, 16), torch.arange(count) % 3)
"""
PATHS = "blocks=inner,mlp=ff,up=0,down=2,attention=mixer,norms=ln1+ln2,head=out"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with owned.py, whose model no adapter knows."""
    (tmp_path / "owned.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("owned", None)


def vit():
    torch.manual_seed(0)
    shape = dict(img_size=16, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=3)
    return timm.create_model("vit_tiny_patch16_224", **shape).eval()


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compile": lambda model: torch.compile(model, backend="eager"),
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("how", WRAPPERS)
def test_a_wrapped_model_is_the_model_inside(how, alone, tmp_path):
    plain, outside = vit(), WRAPPERS[how](vit())
    assert [b.path for b in dw.anatomy(outside).blocks] == [b.path for b in dw.anatomy(plain).blocks]
    batches = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    one, two = (dw.profile(model, batches, probes=["influence"]).table() for model in (plain, outside))
    assert one.equals(two)
    assert dw.count(outside, IMAGES).parameters == dw.count(plain, IMAGES).parameters
    for change in (
        lambda model: dw.drop_blocks(model, [1]),
        lambda model: dw.shallow_mlps(model, 0.5, refit="layer", batches=[IMAGES]),
        lambda model: dw.group_mlps(model, 2),
        lambda model: dw.compress(model, [IMAGES] * 4, parameters=0.8),
    ):
        small = change(outside)
        assert type(small) is type(plain)
        assert torch.equal(small(IMAGES), change(plain)(IMAGES))
    dw.save(outside, tmp_path / "saved")
    assert torch.equal(dw.load(f"file:{tmp_path / 'saved'}")(IMAGES), plain(IMAGES))


class Around(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(16), enable_nested_tensor=False)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_a_model_around_torchs_encoder():
    model = Around().eval()
    parts = dw.anatomy(model)
    assert [b.path for b in parts.blocks] == [f"encoder.layers.{index}" for index in range(3)]
    assert (parts.embedding_path, parts.norm_path, parts.head_path) == ("patches", "encoder.norm", "out")
    assert (parts.width, parts.heads, parts.reads) == (16, 2, "pooled")
    paths = {"blocks": "encoder.layers", "embedding": "patches", "attention": "self_attn", "norm": "encoder.norm"}
    batches = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    said = dw.anatomy(copy.deepcopy(model), paths={**paths, "head": "out", "heads": 2})
    assert dw.profile(model, batches).table().equals(dw.profile(said, batches).table())
    small = dw.drop_blocks(model, [1])
    kept = copy.deepcopy(model)
    kept.encoder.layers = nn.ModuleList([kept.encoder.layers[0], kept.encoder.layers[2]])
    kept.encoder.num_layers = 2
    assert torch.allclose(small(IMAGES), kept(IMAGES), atol=1e-6)
    with pytest.raises(InputError, match="no MLP"):
        dw.shallow_mlps(model, 0.5)


def test_torchs_encoder_alone_and_with_tokens_first():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    alone = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    assert len(dw.profile(alone, [torch.randn(4, 5, 16)]).table()) == 5
    with pytest.raises(InputError, match="batch_first=True"):
        dw.anatomy(Around(batch_first=False))


NOT_TRANSFORMERS = {
    "timm convnext": lambda: timm.create_model("convnext_atto"),
    "timm resnet": lambda: timm.create_model("resnet18"),
    "torchvision convnext": lambda: torchvision.models.convnext_tiny(),
    "hf convnext": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 32, 32], depths=[1] * 4)
    ),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    ),
}


@pytest.mark.parametrize("name", NOT_TRANSFORMERS)
def test_what_is_no_transformer_is_said_to_have_no_blocks(name):
    with torch.device("meta"):
        model = NOT_TRANSFORMERS[name]()
    with pytest.raises(InputError, match="has no transformer blocks"):
        dw.anatomy(model)


def test_paths_are_kept_on_the_model_and_everything_finds_them(own):
    model = dw.load("python:owned:Mine")
    with pytest.raises(InputError, match="--paths blocks="):
        dw.drop_blocks(model, [1])
    parts = dw.anatomy(model, paths=parse_paths(PATHS))
    assert parts.embedding_path == "patchify"
    small = dw.shallow_mlps(dw.drop_blocks(model, [1]), 0.5)
    assert [len(block.mlp_paths.up) for block in dw.anatomy(small).blocks] == [1, 1, 1]
    assert small.inner[0].ff[0].out_features == 24
    assert len(dw.profile(model, [IMAGES]).table()) == 6
    dw.save(small, "saved")
    again = dw.load("file:saved?model=python:owned:Mine")
    assert torch.equal(again(IMAGES), small(IMAGES))
    assert len(dw.anatomy(again).blocks) == 3


def test_paths_in_a_source_are_the_same(own):
    model = dw.load(f"python:owned:Mine?depth=3&paths={PATHS}")
    assert len(dw.anatomy(model).blocks) == 3
    with pytest.raises(InputError, match="leads nowhere"):
        dw.load("python:owned:Mine?paths=blocks=layers")
    assert len(dw.anatomy(dw.load(f"python:owned:Mine?paths={PATHS}"), paths={"blocks": "inner"}).blocks) == 4


def _call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out + err


@pytest.mark.filterwarnings("ignore:how pictures are prepared")  # the images are tensors, prepared already
def test_every_command_takes_paths(own, capsys):
    model, images = ("--vision", "python:owned:Mine"), ("--images", "python:owned:images")
    for verb in ("depth", "mlp"):
        code, said = _call(capsys, verb, *model, *images, "--paths", PATHS, "--dry-run", "--out", own / verb)
        assert code == 0, said
        code, said = _call(capsys, verb, *model, *images, "--dry-run", "--out", own / verb)
        assert (code, "--paths blocks=" in said) == (2, True)
    code, said = _call(
        capsys, "compress", "python:owned:Mine", *images, "--paths", PATHS, "--parameters", "0.8", "--out", "small"
    )
    assert code == 0, said
    small = dw.load("file:small?model=python:owned:Mine")
    assert 0.7 < sum(p.numel() for p in small.parameters()) / sum(
        p.numel() for p in dw.load("python:owned:Mine").parameters()
    ) < 0.83  # fmt: skip
    code, said = _call(capsys, "attention", "--paths", PATHS, "--dry-run")
    assert (code, "--paths without a model" in said) == (2, True)
    code, said = _call(capsys, "depth", *model, *images, "--paths", "inner", "--dry-run")
    assert (code, "NAME=PATH" in said) == (2, True)


@pytest.mark.parametrize("text", ["inner", "blocks=", "blocks=inner,prefix_tokens=one", "=inner"])
def test_paths_that_say_nothing_are_refused(text):
    with pytest.raises(InputError):
        parse_paths(text)
