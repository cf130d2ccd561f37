"""What every test shares: two threads, no network, no progress bars of others, a machine's lock of their own."""

import multiprocessing.util
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long fault loops")


def pytest_configure(config):
    # What several tests share lies in tests/support: on pytest's own path, and here on that of processes tests start.
    support = str(Path(__file__).parent / "support")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), support]))
    config.addinivalue_line("markers", "soak: long fault loops, only with --soak")
    config.addinivalue_line("markers", "slow: trains, starts processes or a browser; `make quick` leaves it out")
    # The lock of timing cells lies among the temporary files: whatever else times things here, tests do not wait for.
    # The name is short because sockets are made below it.
    folder = tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="dw-")
    last = -200  # after multiprocessing has tidied up in there
    multiprocessing.util.Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=last)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--soak"):
        return
    long = [item for item in items if "soak" in item.keywords]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if "soak" not in item.keywords]


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory):
    """A tiny Llama with a byte-level tokenizer, saved the way people save theirs."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="!").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=256,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
