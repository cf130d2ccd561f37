"""Tiny random language models of several families with a real byte-pair tokenizer."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from deadweight.models import LanguageModel

TEXT = [
    "Review: the soup was warm and the bread was fresh.\nSentiment: positive",
    "Review: the room was cold and the waiter was rude.\nSentiment: negative",
    "Question: who wrote the letter that was found in the attic?\nAnswer: nobody knows",
]
SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
FAMILIES = {
    "llama": lambda v: transformers.LlamaConfig(vocab_size=v, num_key_value_heads=2, **SIZE, **SPECIAL),
    "gpt2": lambda v: transformers.GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=4, **SPECIAL),
    "qwen2": lambda v: transformers.Qwen2Config(vocab_size=v, num_key_value_heads=2, **SIZE, **SPECIAL),
    "qwen3": lambda v: transformers.Qwen3Config(vocab_size=v, num_key_value_heads=2, head_dim=8, **SIZE, **SPECIAL),
    "gemma": lambda v: transformers.GemmaConfig(vocab_size=v, num_key_value_heads=1, head_dim=8, **SIZE, **SPECIAL),
    "gemma3, every other layer window 7": lambda v: transformers.Gemma3TextConfig(
        vocab_size=v,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention"],
        **SIZE,
        **SPECIAL,
    ),
    "mistral, window 7": lambda v: transformers.MistralConfig(
        vocab_size=v, num_key_value_heads=2, sliding_window=7, **SIZE, **SPECIAL
    ),
    "gemma2, every other layer window 7": lambda v: transformers.Gemma2Config(
        vocab_size=v, num_key_value_heads=2, head_dim=8, sliding_window=7, **SIZE, **SPECIAL
    ),
}


def tiny_tokenizer(bos=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="</s>")


def tiny_lm(config_of, tokenizer=None, max_length=256):
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(len(tokenizer)))
    with torch.no_grad():
        for weight in model.parameters():  # the usual start is so small that every answer would look alike
            weight.add_(torch.randn_like(weight) * 0.15)
    return LanguageModel(model.eval(), tokenizer, "tiny", max_length)


@pytest.fixture(params=FAMILIES)
def family_lm(request):
    return tiny_lm(FAMILIES[request.param])


@pytest.fixture
def llama():
    return tiny_lm(FAMILIES["llama"])


@pytest.fixture
def build_lm():
    """(configuration of a vocabulary size, tokenizer) -> LanguageModel."""
    return tiny_lm


@pytest.fixture
def build_tokenizer():
    return tiny_tokenizer


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on several threads, and much slower on a busy machine."""
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(was)
