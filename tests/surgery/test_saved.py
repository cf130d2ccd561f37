"""save and the file: source."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import nn

from deadweight.errors import InputError, SourceError
from deadweight.loading import load, load_lm, save
from deadweight.models import LanguageModel, origin
from deadweight.surgery import drop_blocks, group_mlps, scale_positions, shallow_mlps, surgeries

pytestmark = pytest.mark.slow

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2}
TIMM = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 24, "depth": 4, "num_heads": 2}


def operated(model):
    return drop_blocks(shallow_mlps(group_mlps(model, scale=0.5), 0.5, by="weight"), [1])


@pytest.mark.parametrize("name", ["timm", "embedded", "hf_vit", "hf_dinov2", "llama", "hf_gpt2"])
def test_round_trip(name, tmp_path, zoo):
    torch.manual_seed(3)
    if name == "timm":
        model = load("timm:vit_tiny_patch16_224?pretrained=false", **TIMM)
    elif name == "embedded":
        model = load("embedded:digits-vit", **SMALL)
    else:
        model = zoo.fresh(name)
    model = operated(model)
    save(model, tmp_path / "saved")
    again = load(f"file:{tmp_path / 'saved'}")
    assert surgeries(again) == surgeries(model)
    assert not again.training
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert len(list(again.parameters())) == len(list(model.parameters()))
    if name != "embedded":
        assert torch.equal(zoo.run(again), zoo.run(model))
    # and the copy can be operated on, saved and loaded once more
    save(shallow_mlps(again, 0.5), tmp_path / "twice")
    third = load(f"file:{tmp_path / 'twice'}")
    assert [entry["name"] for entry in surgeries(third)][-1] == "shallow_mlps"
    if name in ("timm", "embedded"):
        assert origin(third) == origin(again) == origin(model)


def test_shared_tensors_are_stored_once_and_stay_shared(tmp_path):
    model = group_mlps(load("embedded:digits-vit", **SMALL))
    save(model, tmp_path / "once")
    save(model, tmp_path / "each", expand=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("once", "each")]
    assert sizes[0] < 0.75 * sizes[1]
    with safe_open(tmp_path / "each" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    for name in ("once", "each"):
        again = load(f"file:{tmp_path / name}")
        assert again.blocks[0].mlp is again.blocks[1].mlp
        assert torch.equal(again(torch.ones(1, 1, 8, 8)), model(torch.ones(1, 1, 8, 8)))


def test_an_expanded_language_model_opens_in_transformers(tmp_path, zoo):
    model = drop_blocks(shallow_mlps(zoo.fresh("llama"), 0.5), [0])
    save(model, tmp_path / "out", expand=True)
    again = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    assert torch.equal(zoo.run(again), zoo.run(model))


def test_tied_embeddings_stay_tied(tmp_path, zoo):
    config = zoo.families["llama"]().config
    config.tie_word_embeddings = True
    model = transformers.LlamaForCausalLM(config)
    save(model, tmp_path / "tied")
    again = load(f"file:{tmp_path / 'tied'}")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_dtype_is_kept(tmp_path, zoo):
    save(zoo.fresh("llama").bfloat16(), tmp_path / "half")
    assert load(f"file:{tmp_path / 'half'}").lm_head.weight.dtype == torch.bfloat16


def test_language_models_take_their_tokenizer_along(tmp_path, zoo):
    from tokenizers import Tokenizer, models

    words = {f"w{index}": index for index in range(50)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="w2"
    )
    save(LanguageModel(operated(zoo.fresh("llama")), tokenizer, "mine", 64), tmp_path / "lm")
    again = load_lm(f"file:{tmp_path / 'lm'}", device="cpu")
    assert again.tokenizer("w7").input_ids == tokenizer("w7").input_ids
    assert [entry["name"] for entry in surgeries(again.model)] == ["group_mlps", "shallow_mlps", "drop_blocks"]


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight


def test_a_class_of_the_users_own(tmp_path):
    model = Own()
    save(model, tmp_path / "own")
    with pytest.raises(SourceError, match="model="):
        load(f"file:{tmp_path / 'own'}")
    again = load(f"file:{tmp_path / 'own'}", model=Own())
    assert torch.equal(again.one.weight, model.one.weight)
    assert again.two.weight is again.one.weight
    with pytest.raises(SourceError, match="do not fit"):
        load(f"file:{tmp_path / 'own'}", model=nn.Linear(3, 3))


def test_saving_again_replaces_and_other_folders_are_left_alone(tmp_path):
    model = load("embedded:digits-vit", **SMALL)
    save(model, tmp_path / "it")
    save(scale_positions(model, 0.0), tmp_path / "it")
    assert load(f"file:{tmp_path / 'it'}").pos_embed.abs().sum() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="other things"):
        save(model, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def damage(folder, what):
    weights, manifest = folder / "model.safetensors", folder / "deadweight.json"
    if what == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no weights":
        weights.unlink()
    elif what == "no manifest":
        manifest.unlink()
    elif what == "manifest cut":
        manifest.write_text(manifest.read_text()[:40])
    elif what == "later schema":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    elif what == "gone":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut short", "damaged"),
        ("no weights", "holds no model.safetensors"),
        ("no manifest", "holds no deadweight.json"),
        ("manifest cut", "damaged"),
        ("later schema", "later deadweight"),
        ("gone", "no such folder"),
    ],
)
def test_damage_is_told(what, message, tmp_path):
    save(load("embedded:digits-vit", **SMALL), tmp_path / "it")
    damage(tmp_path / "it", what)
    with pytest.raises(SourceError, match=message):
        load(f"file:{tmp_path / 'it'}")


def test_every_family_has_a_fresh_model_that_can_be_described(zoo):
    from deadweight.surgery.architecture import architecture

    described = {name: architecture(zoo.families[name]()) for name in zoo.families}
    assert all(described.values())
