"""Models as people bring them, each walked through the command line: examined, cut, saved and loaded again, or refused.

    python benchmarks/own_models.py [--only NAME] [--markdown FILE]

Small models with random weights are made in a folder, in the forms in which people have them: checkpoints of training
scripts, state dicts, folders of save_pretrained, code of one's own. Every command must end well, or with exit code 2
and one error that says why; anything else is counted as a failure, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import timm
import torch
import torchvision
import transformers as t
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deadweight.cli import main as command_line

VISION = dict(
    hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
)
LABELS = {"num_labels": 3}
WORDS = dict(
    hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
    vocab_size=256, max_position_embeddings=512, bos_token_id=None, eos_token_id=0, pad_token_id=None,
)  # fmt: skip
OWN = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.mixer = nn.MultiheadAttention(32, 4, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.mixer(y, y, y, need_weights=False)[0]
        return x + self.ff(self.ln2(x))

class Mine(nn.Module):
    def __init__(self, depth: int = 4):
        super().__init__()
        self.patchify = nn.Conv2d(3, 32, 8, 8)
        self.inner = nn.ModuleList(Block() for _ in range(depth))
        self.out = nn.Linear(32, 3)

    def forward(self, x):
        x = self.patchify(x).flatten(2).transpose(1, 2)
        for layer in self.inner:
            x = layer(x)
        return self.out(x.mean(1))

def build(depth: int = 4):
    torch.manual_seed(0)
    return Mine(depth)

def images(count: int = 60):
    torch.manual_seed(1)
    return torch.utils.data.TensorDataset(torch.randn(count, 3, 32, 32), torch.arange(count) % 3)
"""
PATHS = "blocks=inner,mlp=ff,up=0,down=2,attention=mixer,norms=ln1+ln2,head=out"


def hub(build: Callable[[], t.PreTrainedModel], *, words: bool = False) -> Callable[[Path], list[str]]:
    """A folder that save_pretrained wrote; the source of it."""

    def make(folder: Path) -> list[str]:
        build().save_pretrained(folder)
        if words:
            _tokenizer().save_pretrained(folder)
        return [f"hf:{folder}"]

    return make


def _tokenizer() -> t.PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="!")  # noqa: S106


def timm_script(folder: Path) -> list[str]:
    """What timm's train.py leaves: it says what it is of."""
    made = timm.create_model("test_vit", num_classes=3, img_size=32)
    args = argparse.Namespace(model="test_vit", num_classes=3, img_size=32, mean=None, std=None)
    content = {"arch": "test_vit", "epoch": 1, "args": args, "state_dict": made.state_dict(), "metric": np.float64(1)}
    torch.save(content, folder / "last.pth.tar")
    return [f"checkpoint:{folder / 'last.pth.tar'}"]


def torchvision_state(folder: Path) -> list[str]:
    """A state dict of torchvision's reference scripts, under data parallelism. The class is torchvision's, the sizes
    are not those of any name it has, so that a function builds it.
    """
    sizes = "image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=3"
    (folder / "small.py").write_text(
        f"import torchvision\n\ndef build():\n    return torchvision.models.VisionTransformer({sizes})\n"
    )
    made = torchvision.models.VisionTransformer(**{k: int(v) for k, v in (one.split("=") for one in sizes.split(", "))})
    torch.save({"model": {f"module.{n}": w for n, w in made.state_dict().items()}}, folder / "model.pth")
    return [f"python:{folder / 'small.py'}:build?checkpoint={folder / 'model.pth'}"]


def own(folder: Path) -> list[str]:
    """A class of one's own, with weights in a file."""
    (folder / "owned.py").write_text(OWN)
    return [f"python:{folder / 'owned.py'}:build?depth=4", "--paths", PATHS]


LM = {
    "Llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**WORDS)),
    "Qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**WORDS, head_dim=8)),
    "Gemma 3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**WORDS, head_dim=8, sliding_window=64)),
    "Phi-3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**{**WORDS, "pad_token_id": 0})),
    "OLMo 2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**WORDS)),
    "Mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**WORDS, num_local_experts=4)),
    "Mamba": lambda: t.MambaForCausalLM(
        t.MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, state_size=8, eos_token_id=0)
    ),
}  # fmt: skip
SIGHT = {
    "HF ViT": hub(lambda: t.ViTForImageClassification(t.ViTConfig(**VISION, **LABELS))),
    "timm .pth.tar": timm_script,
    "torchvision state dict": torchvision_state,
    "own module": own,
    "HF Swin": hub(
        lambda: t.SwinForImageClassification(
            t.SwinConfig(
                image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, **LABELS
            )
        )
    ),
    "CLIP classifier": hub(
        lambda: t.CLIPForImageClassification(
            t.CLIPConfig(vision_config=VISION, text_config=dict(hidden_size=32, num_hidden_layers=1), **LABELS)
        )
    ),
    "DINOv2 with registers": hub(
        lambda: t.Dinov2WithRegistersForImageClassification(
            t.Dinov2WithRegistersConfig(**{**VISION, "mlp_ratio": 2}, num_register_tokens=4, **LABELS)
        )
    ),
    "DeiT distilled": hub(lambda: t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**VISION, **LABELS))),
    "ConvNeXt": hub(
        lambda: t.ConvNextForImageClassification(
            t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **LABELS)
        )
    ),
}  # fmt: skip


def materials(folder: Path) -> None:
    """Pictures of three classes, and a text."""
    random = np.random.default_rng(0)
    for number in range(60):
        place = folder / "pictures" / f"class {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place / f"{number}.png")
    sentences = (
        f"Line {n} tells of {random.integers(1000)} ships and {random.integers(1000)} storms." for n in range(9000)
    )
    (folder / "book.txt").write_text("\n".join(sentences))


def call(*arguments: object) -> tuple[str, bool]:
    """(what came of a command, whether that is right): done, or refused with one error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            command_line([str(argument) for argument in arguments])
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        except Exception as problem:
            return f"TRACEBACK {type(problem).__name__}: {problem}"[:160], False
    if code in (0, None):
        return "done", True
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error:")]
    if code == 2 and len(lines) == 1:
        return f"refused: {lines[0].removeprefix('error: ')[:150]}", True
    return f"CODE {code}: {(lines or said.getvalue().splitlines() or [''])[-1][:150]}", False


def walk(name: str, source: Sequence[str], folder: Path, text: bool) -> tuple[list[str], bool]:
    """One model through all commands."""
    role = "--language" if text else "--vision"
    images = (
        f"python:{folder / 'made' / 'owned.py'}:images" if name == "own module" else f"folder:{folder / 'pictures'}"
    )
    data = ("--text", f"text:{folder / 'book.txt'}") if text else ("--images", images)
    small, few = folder / "smaller", ("--limit", 24, "--quiet")
    named = (source[0], *source[1:], *data)
    budget = ("--parameters", 0.85, "--limit", 32, "--length", 64, "--quiet")
    results = [
        call("depth", role, *named, *few, "--out", folder / "depth"),
        call("mlp", role, *named, *few, "--out", folder / "mlp"),
        call("compress", *named, *budget, "--out", small),
    ]
    if results[-1][0].startswith("done"):
        option = f"?model={source[0].partition('?')[0]}" if name == "own module" else ""
        results.append(
            call("mlp", role, f"file:{small}{option}", *data, "--limit", 24, "--out", folder / "again", "--quiet")
        )
    else:
        results.append(("", True))
    return [result for result, _ in results], all(right for _, right in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one model, by its name")
    parser.add_argument("--markdown", help="a file for the table")
    options = parser.parse_args()
    makers = {**SIGHT, **{name: hub(build, words=True) for name, build in LM.items()}}
    rows, right = [], True
    for name, make in makers.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            materials(folder)
            (folder / "made").mkdir()
            torch.manual_seed(0)
            source = make(folder / "made")
            results, well = walk(name, source, folder, name in LM)
        right &= well
        rows.append(f"| {name} | {' | '.join(results)} |")
        print(rows[-1], flush=True)
    table = ["| model | depth | mlp | compress | the smaller one again |", "|---|---|---|---|---|", *rows]
    if options.markdown:
        Path(options.markdown).write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
