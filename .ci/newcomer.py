"""What somebody meets who clones the project today: README and tutorials, exactly as written, in a fresh clone.

    python .ci/newcomer.py [--python FILE] [--keep]

Everything of the README's shell blocks is typed into a shell, in order: the first block sets everything up. What the
examples call the reader's own (my_pictures, my_model, my_vit, reviews.csv) is made first. Commands that name a model on
a hub are typed only where the network reaches it; else they are listed at the end as not tried. With --python an
environment that has deadweight's dependencies is used instead of a new one: the audit is run without `make`, and
`make test` is not typed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = """
from pathlib import Path
import transformers, deadweight as dw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from sklearn.datasets import load_digits
from PIL import Image
digits = load_digits()
for at, (picture, label) in enumerate(zip(digits.images[:400], digits.target)):
    folder = Path("my_pictures") / str(label)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 15.9).astype("uint8")).save(folder / f"{at}.png")
vit = dw.load("embedded:digits-vit", num_classes=10)
dw.save(vit, "my_vit")
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="!").save_pretrained("my_model")
config = transformers.LlamaConfig(
    hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, vocab_size=256,
    max_position_embeddings=4096, bos_token_id=None, eos_token_id=0,
)
transformers.LlamaForCausalLM(config).save_pretrained("my_model")
words = {"good": ["lovely", "warm", "clever", "fine"], "bad": ["dull", "cold", "clumsy", "poor"]}
rows = [f"A {word} film number {n}.,{label}" for label in words for word in words[label] for n in range(8)]
Path("reviews.csv").write_text("body,stars\\n" + "\\n".join(rows))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="an interpreter to use instead of a new environment")
    parser.add_argument("--keep", action="store_true", help="leave the clone where it is")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="newcomer-"))
    try:
        return visit(folder / "deadweight", options.python)
    finally:
        if options.keep:
            print(f"the clone: {folder / 'deadweight'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def visit(clone: Path, python: str | None) -> int:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    python = python or str(clone / ".venv" / "bin" / "python")
    shims = clone.parent / "bin"
    shims.mkdir()
    for name in ("deadweight", "python"):
        module = " -m deadweight" if name == "deadweight" else ""
        (shims / name).write_text(f'#!/bin/sh\nexec "{python}"{module} "$@"\n')
        (shims / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    existing = not python.startswith(str(clone))
    failed, untried = [], []
    made = False
    for command in commands(clone / "README.md"):
        if existing and command.startswith("make audit"):  # what it does once everything is set up
            run([python, "-m", "deadweight", "audit", "--out", "audit"], clone, environment, "deadweight audit", failed)
        elif existing and command.startswith("make"):
            untried.append(f"{command}  (an environment was given)")
        elif re.search(r"\b(timm|torchvision):\w+", command) and not reachable():
            untried.append(f"{command}  (needs weights from the hub)")
        else:
            if not command.startswith("make") and not made:
                made = True
                run([python, "-c", OWN], clone, environment, "the reader's own things", failed)
            run(["bash", "-c", command], clone, environment, command, failed)
    for notebook in sorted((clone / "docs" / "tutorials").glob("*.ipynb")):
        run([python, "-c", EXECUTE, str(notebook)], clone, environment, notebook.name, failed)
    for line in untried:
        print(f"not tried: {line}")
    print(f"{len(failed)} failed" + "".join(f"\n  {line}" for line in failed))
    return 1 if failed else 0


EXECUTE = """
import sys, tempfile, nbformat
from nbclient import NotebookClient
with tempfile.TemporaryDirectory() as folder:
    NotebookClient(nbformat.read(sys.argv[1], 4), timeout=600, resources={"metadata": {"path": folder}}).execute()
"""


def commands(readme: Path) -> list[str]:
    """The lines of the README's shell blocks, comments aside."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run(command: list[str], folder: Path, environment: dict[str, str], name: str, failed: list[str]) -> bool:
    print(f"$ {name}", flush=True)
    done = subprocess.run(command, cwd=folder, env=environment)
    if done.returncode:
        failed.append(f"{name}: exit code {done.returncode}")
    return done.returncode == 0


def reachable() -> bool:
    try:
        socket.create_connection(("huggingface.co", 443), timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
