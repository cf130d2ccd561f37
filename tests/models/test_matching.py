"""A checkpoint is the model's, or refused: prefixes, lost tensors, parts of GGUF files, heads and formats."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import deadweight as dw
from deadweight.errors import SourceError
from deadweight.models.matching import plain_key

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=256)


@pytest.fixture
def renamed(language_folder, tmp_path):
    """Copies the folder with its tensors renamed by a function of the name; None leaves a tensor out."""

    def copy(rename):
        where = shutil.copytree(language_folder, tmp_path / "model")
        old = load_file(where / "model.safetensors")
        new = {rename(name): tensor for name, tensor in old.items() if rename(name) is not None}
        save_file(new, where / "model.safetensors", metadata={"format": "pt"})
        return where, old

    return copy


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("model.layers", "model._orig_mod.layers"),
        lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
    ],
    ids=["compile", "data parallel", "both", "compiled outside", "a compiled part", "checkpointed activations"],
)
def test_prefixes_of_wrappers_are_understood(renamed, rename):
    where, old = renamed(rename)
    assert {plain_key(rename(name)) for name in old} == set(old)
    for model in (dw.load(f"hf:{where}"), dw.load_lm(f"hf:{where}").model):
        state = model.state_dict()
        assert all(torch.equal(state[name].cpu(), tensor) for name, tensor in old.items())


def test_lost_tensors_are_counted_and_named(renamed):
    where, old = renamed(lambda name: None if ".layers.1.mlp" in name else name)
    for read in (dw.load, dw.load_lm):
        with pytest.raises(SourceError, match=rf"3 of the model's {len(old)} tensors .*layers\.1\.mlp\.down_proj"):
            read(f"hf:{where}")
    with pytest.warns(UserWarning, match="left at random"):
        model = dw.load(f"hf:{where}?strict=false")
    kept = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[kept], old[kept])


def test_tensors_without_a_place_and_of_other_shapes_are_refused(language_folder, tmp_path):
    where = shutil.copytree(language_folder, tmp_path / "model")
    tensors = load_file(where / "model.safetensors")
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)
    tensors["model.norm.weight"] = torch.zeros(5)
    save_file(tensors, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"1 of the checkpoint's .*layers\.7.*; 1 differ in shape \(model\.norm"):
        dw.load(f"hf:{where}")


BLOCKS, WIDTH, WORDS = 2, 64, 259


def _gguf(path, names, tensors, split=None, header=True):
    writer = gguf.GGUFWriter(path, "llama")
    if header:
        for add, value in {
            writer.add_block_count: BLOCKS, writer.add_context_length: 256, writer.add_embedding_length: WIDTH,
            writer.add_feed_forward_length: 128, writer.add_head_count: 4, writer.add_head_count_kv: 4,
            writer.add_layer_norm_rms_eps: 1e-5, writer.add_rope_freq_base: 1e4, writer.add_vocab_size: WORDS,
            writer.add_tokenizer_model: "llama", writer.add_bos_token_id: 1, writer.add_eos_token_id: 2,
            writer.add_token_list: ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
            writer.add_token_scores: [0.0] * WORDS, writer.add_token_types: [2, 3, 3] + [6] * 256,
            writer.add_unk_token_id: 0,
        }.items():  # fmt: skip
            add(value)
    if split:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
        writer.add_int32("split.tensors.count", len(tensors))
    for name in names:
        writer.add_tensor(name, tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def split(tmp_path):
    """(the whole file, part one, part two) of a small Llama."""
    random = np.random.default_rng(0)
    shapes = {
        "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (128, WIDTH), "ffn_up": (128, WIDTH), "ffn_down": (WIDTH, 128),
        "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
    }  # fmt: skip
    named = {f"blk.{block}.{name}.weight": shape for block in range(BLOCKS) for name, shape in shapes.items()}
    named |= {"token_embd.weight": (WORDS, WIDTH), "output_norm.weight": (WIDTH,), "output.weight": (WORDS, WIDTH)}
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in named.items()}
    names = list(tensors)
    files = [tmp_path / name for name in ("whole.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")]
    _gguf(files[0], names, tensors)
    _gguf(files[1], names[:12], tensors, split=(0, 2))
    _gguf(files[2], names[12:], tensors, split=(1, 2), header=False)
    return files


def test_all_parts_of_a_split_gguf_are_read(split):
    wanted = dw.load(f"gguf:{split[0]}").state_dict()
    for part in split[1:]:
        found = dw.load_lm(f"gguf:{part}", device="cpu")
        assert found.tokenizer.vocab_size == WORDS
        assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in wanted.items())


def test_a_missing_part_is_named(split):
    split[2].unlink()
    for read in (dw.load, dw.load_lm):
        with pytest.raises(SourceError, match=r"m-00002-of-00002\.gguf is not in"):
            read(f"gguf:{split[1]}")
    renamed = split[1].rename(split[1].with_name("mine.gguf"))
    with pytest.raises(SourceError, match="one of 2 parts, and its name does not say which"):
        dw.load(f"gguf:{renamed}")


def test_parts_of_different_models_are_refused(split):
    _gguf(split[2], [], {}, split=(1, 2), header=False)
    with pytest.raises(SourceError, match="hold 12 tensors, and the first says 21"):
        dw.load(f"gguf:{split[1]}")


HEADS = {
    "reward": (lambda: transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SMALL, pad_token_id=0)),
               "classification or reward head"),
    "bare": (lambda: transformers.LlamaModel(transformers.LlamaConfig(**SMALL)), "without its output head"),
    "masked": (lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)), "fills in masked words"),
    "both": (lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=256, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)), "an encoder with a decoder"),
    "vision": (lambda: transformers.ViTModel(transformers.ViTConfig(
        **{k: v for k, v in SMALL.items() if k != "vocab_size"})), "without its output head"),
    "mamba": (lambda: transformers.MambaForCausalLM(transformers.MambaConfig(
        vocab_size=256, hidden_size=16, num_hidden_layers=1, state_size=4)), "no transformer blocks"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_what_is_no_causal_language_model_is_refused_by_its_configuration(kind, tmp_path):
    make, reason = HEADS[kind]
    make().config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = [type(make()).__name__]
    (tmp_path / "config.json").write_text(json.dumps(config))  # and no weights: none are needed to say so
    with pytest.raises(SourceError, match=reason):
        dw.load_lm(f"hf:{tmp_path}")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_quantised_weights_are_refused_as_what_they_are(method, language_folder, tmp_path):
    where = shutil.copytree(language_folder, tmp_path / "model")
    config = json.loads((where / "config.json").read_text()) | {"quantization_config": {"quant_method": method}}
    (where / "config.json").write_text(json.dumps(config))
    for read in (dw.load, dw.load_lm):
        with pytest.raises(SourceError, match=f"quantised with {method}"):
            read(f"hf:{where}")


def test_a_configuration_without_architectures_keeps_its_head(language_folder, tmp_path):
    where = shutil.copytree(language_folder, tmp_path / "model")
    config = json.loads((where / "config.json").read_text())
    del config["architectures"]
    (where / "config.json").write_text(json.dumps(config))
    wanted = dw.score_labels(dw.load_lm(f"hf:{language_folder}"), ["one"], [" yes"])
    assert torch.equal(dw.score_labels(dw.load_lm(f"hf:{where}"), ["one"], [" yes"]), wanted)
    assert isinstance(dw.load(f"hf:{where}"), transformers.LlamaForCausalLM)


def test_an_adapter_is_said_to_be_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceError, match="merge_and_unload"):
        dw.load_lm(f"hf:{tmp_path}")


def test_a_tokenizer_of_another_model_is_refused_before_weights_are_read(language_folder, tmp_path):
    where = shutil.copytree(language_folder, tmp_path / "model")
    config = json.loads((where / "config.json").read_text()) | {"vocab_size": 200}
    (where / "config.json").write_text(json.dumps(config))
    (where / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="knows 256 tokens, and the model's embedding has 200 rows"):
        dw.load_lm(f"hf:{where}")


def test_a_head_of_its_own_is_loaded_with_it(tmp_path):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16)
    theirs = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**sizes, patch_size=8))
    theirs.save_pretrained(tmp_path)
    ours = dw.load(f"hf:{tmp_path}")
    assert type(ours) is type(theirs)
    assert torch.equal(ours.distillation_classifier.weight, theirs.distillation_classifier.weight)
