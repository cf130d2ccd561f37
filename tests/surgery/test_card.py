"""Model cards: in Hugging Face's format, and what they say about loading is true."""

from __future__ import annotations

import pytest
import torch
import transformers
from huggingface_hub import ModelCard

import deadweight as dw
from deadweight.loading.card import stands_alone

TOKENS = torch.arange(1, 9)[None]
SURGERIES = {
    "none": lambda model: model,
    "drop": lambda model: dw.drop_blocks(model, [1]),
    "group": lambda model: dw.group_mlps(model, size=2),
    "shallow": lambda model: dw.shallow_mlps(model, 0.5),
}


@pytest.fixture
def llama(language_folder):
    return dw.load_lm(f"hf:{language_folder}")


def _read(folder):
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize("name", SURGERIES)
@pytest.mark.parametrize("expand", [False, True], ids=["shared", "expanded"])
def test_what_the_card_promises_holds(llama, tmp_path, name, expand):
    changed = SURGERIES[name](llama.model)
    dw.save(changed, tmp_path / "saved", expand=expand)
    card = _read(tmp_path / "saved")
    with torch.no_grad():
        logits = changed(TOKENS).logits
        assert torch.equal(dw.load(f"file:{tmp_path / 'saved'}")(TOKENS).logits, logits)
        if card.data.library_name == "transformers":
            assert "Transformers alone" in card.content
            plain = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "saved").eval()
            torch.testing.assert_close(plain(TOKENS).logits, logits, rtol=1e-5, atol=1e-6)
    if not expand:
        assert card.data.library_name == "deadweight"
    if expand and name in ("none", "drop", "group"):
        assert card.data.library_name == "transformers"


def test_the_card_says_what_was_done_and_from_what(llama, tmp_path, language_folder):
    dw.save(SURGERIES["drop"](llama.model), tmp_path / "saved")
    card = _read(tmp_path / "saved")
    assert card.data.tags == ["deadweight", "drop-blocks"]
    assert "drop_blocks(indices=[1])" in card.content
    count = sum(p.numel() for p in dw.load(f"file:{tmp_path / 'saved'}").parameters())
    assert f"{count:,} parameters" in card.content
    assert card.data.base_model is None or "/" in card.data.base_model


def test_another_mechanism_is_not_what_transformers_alone_would_build(llama):
    swap = {"name": "swap_attention", "arguments": {"name": "linear"}}
    assert stands_alone(llama.model, [])
    assert not stands_alone(llama.model, [swap])
    assert stands_alone(llama.model, [{**swap, "arguments": {"name": "eager"}}])


def test_a_config_that_no_longer_fits_is_noticed(llama):
    llama.model.config.intermediate_size += 1
    assert not stands_alone(llama.model, [])


def test_a_class_of_ones_own_is_loaded_with_an_instance(tmp_path):
    dw.save(torch.nn.Linear(2, 2), tmp_path / "saved")
    assert "model=YourClass(…)" in _read(tmp_path / "saved").content
