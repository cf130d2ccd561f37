"""`python:MODULE:FUNCTION`: only what is named is imported, options are the function's, errors name file and line."""

import json
import sys

import pytest
import torch
import transformers

import deadweight as dw
from deadweight.data import load_images
from deadweight.errors import InputError, SourceError
from deadweight.own_code import file_of
from deadweight.source import parse_source
from deadweight.studies.frame.models import language_digest

CODE = """
import torch, timm
from torch.utils.data import DataLoader, Dataset, TensorDataset
from timm.models.vision_transformer import VisionTransformer

def build(depth: int = 2, classes: int = 3, note: str = ""):
    torch.manual_seed(depth)
    shape = dict(img_size=8, patch_size=4, in_chans=1, embed_dim=8, num_heads=2)
    return VisionTransformer(depth=depth, num_classes=classes, **shape)

class Mine(torch.nn.Linear):
    def __init__(self, width: int = 2):
        super().__init__(width, 3)

def free(**options):
    return build(**options)

def broken():
    return torch.zeros(3).nothing

def number():
    return 3

def tensors(count=12):
    return torch.arange(count * 64.).reshape(count, 1, 8, 8), torch.arange(count) % 3

def dataset(count: int = 12):
    return TensorDataset(*tensors(count))

class Named(Dataset):
    classes = ["ant", "bee", "cow"]
    def __len__(self):
        return 12
    def __getitem__(self, index):
        x, y = tensors()
        return {"image": x[index], "label": int(y[index])}

def loader():
    return DataLoader(dataset(), batch_size=5)

def both():
    return {"train": DataLoader(dataset(9)), "val": dataset(6)}

def pair():
    return dataset(9), dataset(6)

def batches():
    x, y = tensors()
    return iter([(x[:5], y[:5]), (x[5:], y[5:])])

def bare():
    return tensors()[0]

def unlabelled():
    return DataLoader(TensorDataset(tensors()[0]))

def rows(good="lovely"):
    return [{"text": f"A {good} film, number {n}.", "label": "good"} for n in range(9)] + [
        {"text": f"A dull film, number {n}.", "label": "bad"} for n in range(9)]

def task():
    import deadweight as dw
    made = dw.load_task("embedded:topic")
    return dw.Task("mine", made.items, made.label_words, made.template)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with my_code.py, which is imported by nothing else."""
    (tmp_path / "my_code.py").write_text(CODE)
    (tmp_path / "never.py").write_text("raise RuntimeError('nobody named me')")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_code", None)


@pytest.mark.parametrize("module", ["my_code", "./my_code.py", "{here}/my_code.py"])
def test_a_model_is_what_the_function_returns(here, module, capsys):
    path = list(sys.path)
    name = module.format(here=here)
    model = dw.load(f"python:{name}:build?depth=3")
    assert len(model.blocks) == 3
    assert not model.training
    assert len(dw.load(f"python:{name}:build", depth=4).blocks) == 4
    assert len(dw.load(f"python:{name}:free?depth=5").blocks) == 5
    assert "running build of" in capsys.readouterr().err
    assert "never" not in sys.modules
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("python:my_code:build?dept=3", "which nothing reads"),
        ("python:my_code:build?depth=three", "a whole number"),
        ("python:my_code:buidl", "did you mean 'build'"),
        ("python:my_cod:build", "no module 'my_cod'"),
        ("python:my_code", "does not name a module and a function"),
        ("python:./gone.py:build", "no file"),
        ("python:never:build", r"nobody named me.*never\.py, line 1"),
        ("python:my_code:broken", r"AttributeError.*my_code\.py, line 19"),
        ("python:my_code:number", "returned a int"),
        ("python:my_code:build?ema=true", "no checkpoint="),
    ],
)
def test_what_is_wrong_is_one_error(here, source, message):
    with pytest.raises(SourceError, match=message):
        dw.load(source)


def test_weights_of_a_file_for_a_model_of_ones_own(here):
    torch.manual_seed(9)
    trained = {name: torch.randn_like(tensor) for name, tensor in dw.load("python:my_code:build").state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in trained.items()}}, "best.pth")
    found = dw.load("python:my_code:build?checkpoint=best.pth").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in trained.items())
    with pytest.raises(SourceError, match="differ in shape"):
        dw.load("python:my_code:build?classes=4&checkpoint=best.pth")


def test_a_saved_model_is_rebuilt_by_the_function_that_is_named_again(here):
    library = dw.drop_blocks(dw.load("python:my_code:build?depth=3"), [1])
    dw.save(library, "library")
    assert len(dw.load("file:library").blocks) == 2, "timm's own class needs no code of anybody's"
    model = dw.load("python:my_code:Mine?width=5")
    dw.save(model, "saved")
    sys.modules.pop("my_code")
    with pytest.raises(SourceError, match=r"\?model=python:my_code:Mine"):
        dw.load("file:saved")
    assert "my_code" not in sys.modules, "a folder's own word runs nothing"
    again = dw.load("file:saved?model=python:my_code:Mine")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert 'dw.load("file:THIS_FOLDER?model=python:my_code:Mine")' in (here / "saved" / "README.md").read_text()
    with pytest.raises(SourceError, match="python:MODULE:FUNCTION"):
        dw.load("file:saved?model=timm:test_vit")


def test_a_folder_that_names_code_does_not_run_it(here):
    dw.save(dw.load("embedded:digits-vit"), "saved")
    manifest = json.loads((here / "saved" / "deadweight.json").read_text())
    for named in ("python:never:build", "python:./never.py:build"):
        manifest |= {"architecture": None, "origin": {"source": named, "options": {}}}
        (here / "saved" / "deadweight.json").write_text(json.dumps(manifest))
        with pytest.raises(SourceError, match="cannot rebuild"):
            dw.load("file:saved")
    assert "never" not in sys.modules


@pytest.mark.parametrize(
    ("name", "train", "held_out"),
    [("dataset", 9, 3), ("Named", 9, 3), ("loader", 9, 3), ("batches", 9, 3), ("both", 9, 6), ("pair", 9, 6)],
)
def test_images_are_what_the_function_returns(here, name, train, held_out):
    data = load_images(f"python:my_code:{name}")
    assert (len(data.train), len(data.validation)) == (train, held_out)
    assert data.classes == (("ant", "bee", "cow") if name == "Named" else ("0", "1", "2"))
    assert (data.channels, data.size) == (1, (8, 8))
    image, label = data.validation[0]
    assert label == int(image[0, 0, 0]) // 64 % 3  # a tensor is left as it is
    again = load_images(f"python:my_code:{name}")
    assert again.fingerprint == data.fingerprint
    assert load_images("python:my_code:dataset?count=13").fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [("bare", r"a tensor of shape \(12, 1, 8, 8\)"), ("number", "a int"), ("unlabelled", "image and the number")],
)
def test_what_is_no_images_says_what_is_expected(here, name, message):
    with pytest.raises(InputError, match=message):
        load_images(f"python:my_code:{name}")


def test_tasks_are_what_the_function_returns(here):
    assert dw.load_task("python:my_code:task").name == "mine"
    made = dw.load_task("python:my_code:rows?good=fine")
    assert list(made.labels) == ["bad", "good"]
    assert made.items[0].fields["text"] == "A fine film, number 0."
    with pytest.raises(SourceError, match=r"a dw\.Task, or rows"):
        dw.load_task("python:my_code:number")


def test_a_language_model_of_ones_own(here, language_folder):
    (here / "words.py").write_text(
        "import transformers as t\n"
        f"def build(folder={str(language_folder)!r}):\n"
        "    return t.AutoModelForCausalLM.from_pretrained(folder), t.AutoTokenizer.from_pretrained(folder)\n"
        "def model():\n    return build()[0]\n"
    )
    own, theirs = dw.load_lm("python:words:build", device="cpu"), dw.load_lm(f"hf:{language_folder}", device="cpu")
    assert torch.equal(dw.score_labels(own, ["one"], [" yes"]), dw.score_labels(theirs, ["one"], [" yes"]))
    assert own.max_length == theirs.max_length
    assert isinstance(dw.load("python:words:build"), transformers.LlamaForCausalLM)
    with pytest.raises(SourceError, match=r"a pair \(model, tokenizer\)"):
        dw.load_lm("python:words:model")
    before = language_digest(parse_source("python:words:build"))
    (here / "words.py").write_text("\n" + (here / "words.py").read_text())
    assert language_digest(parse_source("python:words:build")) != before
    sys.modules.pop("words")


def test_the_file_of_a_module_is_found_without_running_it(here):
    assert file_of(parse_source("python:never:build")).resolve() == here / "never.py"
    assert file_of(parse_source("python:gone:build")) is None
