"""The examples of every --help, typed as they stand where what they name is there."""

import shutil

import pytest

from deadweight.cli import app
from deadweight.loading import load, save

pytestmark = pytest.mark.slow

COMPUTE = ("audit", "mlp", "depth", "icl", "attention", "run", "compress")
NOT_HERE = ("timm:", "hf:")  # weights on a hub, or a language model of the reader's own


def examples():
    for command in app:
        if command.startswith("-"):
            continue
        text = " ".join((app[command].default_command.__doc__ or "").split())
        words = text.split("Example: deadweight ")[1].split(" Args:")[0].split()
        if not any(word.startswith(NOT_HERE) for word in words):
            yield pytest.param(words, id=command)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the examples call the reader's own: pictures, a model, finished runs."""
    from PIL import Image
    from sklearn.datasets import load_digits

    desk = tmp_path_factory.mktemp("desk")
    digits = load_digits()
    for at, (picture, label) in enumerate(zip(digits.images[:60], digits.target, strict=False)):
        folder = desk / "my_pictures" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15.9).astype("uint8")).save(folder / f"{at}.png")
    save(load("embedded:digits-vit", num_classes=10), desk / "my_vit")
    words = ["mlp", "--limit", "40", "--epochs", "1", "--seeds", "0", "--quiet", "--out", str(desk / "audit")]
    assert app(words, exit_on_error=False, result_action="return_value") == 0
    for run in ("mlp", "before", "after"):
        shutil.copytree(desk / "audit", desk / "runs" / run)
    return desk


@pytest.mark.parametrize("words", examples())
def test_it_runs(words, desk, monkeypatch, capsys):
    """Those that compute for minutes are only planned."""
    monkeypatch.chdir(desk)
    planned = ["--dry-run"] if words[0] in COMPUTE and "--dry-run" not in words else []
    assert app([*words, *planned], exit_on_error=False, result_action="return_value") == 0
    assert capsys.readouterr().out
