"""Texts cut by a tokenizer, and the packaged paper study that needs them."""

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from deadweight.data import load_text
from deadweight.errors import SourceError
from deadweight.lab import Workbench
from deadweight.studies.attention.study import EIGHT, AttentionStudy
from deadweight.studies.attention.text import cut
from deadweight.studies.frame.run import load_study

pytestmark = pytest.mark.slow

WORDS = ["unknown", "def", "return", "self", "import", "the"]


@pytest.fixture
def tokenizer(tmp_path):
    """A model folder with a tokenizer of six words and a configuration."""
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="unknown"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "words"
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="unknown").save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "vocab_size": 6, "architectures": ["GPT2LMHeadModel"]})
    )
    return f"hf:{folder}"


def test_a_text_is_cut_into_the_tokenizers_words(tokenizer, tmp_path):
    (tmp_path / "book.txt").write_text("the def x self\n" * 8_000)  # several pieces
    text = load_text(f"text:{tmp_path / 'book.txt'}")
    words = cut(text, tokenizer)
    assert words.vocabulary == 6
    assert words.train[:8].tolist() == [5, 1, 0, 3] * 2
    assert len(words.train) == 4 * 7_200
    assert len(words.validation) == 4 * 800
    assert words.fingerprint not in (text.fingerprint, cut(load_text("embedded:stdlib"), tokenizer).fingerprint)


def test_a_study_trains_on_tokens_and_says_so(tokenizer, tmp_path):
    study = AttentionStudy(
        mechanisms=("sdpa",), tokenizer=tokenizer, steps=3, length=16, dim=16, depth=1, heads=2, seeds=(0,), limit=4,
        timing_lengths=(16,), timing_dim=16, timing_heads=2, timed_model=False,
    )  # fmt: skip
    cell = study.cells()[0]
    assert cell.params["tokenizer"] == tokenizer
    result = study.run(cell, Workbench(tmp_path, None, cell)).result
    assert max(result["losses"]) < 3  # log of six words is 1.8; of 256 bytes it would be 5.5
    assert len(result["held_out_curve"]) == 3


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(SourceError):
        cut(load_text("embedded:stdlib"), f"hf:{tmp_path}/none")


def test_the_papers_study_is_the_papers_size():
    study = load_study("paper-2507.07247")
    assert isinstance(study, AttentionStudy)
    assert study.mechanisms == EIGHT
    assert (study.batch, study.length, study.epoch, study.lr) == (16, 512, 400, 5e-5)
    assert (study.dim, study.depth, study.heads) == (768, 12, 12)
    offline = study.model_copy(update={"text": "embedded:stdlib", "tokenizer": None})
    kinds = [(cell.kind, cell.params.get("subject")) for cell in offline.cells()]
    assert kinds.count(("train", None)) == 24
    assert kinds.count(("time", "model")) == 1
    assert kinds.count(("time", "layer")) == 7 * 2 * 2
    assert torch.get_default_dtype() == torch.float32
