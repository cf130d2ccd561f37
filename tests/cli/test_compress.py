"""deadweight compress, as a person calls it."""

import json

import pytest
import torch

import deadweight as dw
from deadweight.cli import app

pytestmark = pytest.mark.slow


def call(*words):
    return app([str(word) for word in words], exit_on_error=False, result_action="return_value")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "vit"
    dw.save(dw.load("embedded:digits-vit", patch_size=4, embed_dim=24, depth=3, num_heads=2), folder)
    return f"file:{folder}"


def test_a_vision_model(vit, tmp_path, capsys):
    out = tmp_path / "smaller"
    code = call(
        "compress", vit, "--images", "embedded:digits", "--limit", 40, "--parameters", 0.7, "--out", out, "--json"
    )
    assert code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reached"]
    small = dw.load(f"file:{out}")
    assert sum(p.numel() for p in small.parameters()) == told["after"]["parameters"] <= told["asked"]["parameters"]
    assert json.loads((out / "compression.json").read_text())["after"] == told["after"]
    page = (out / "report.html").read_text()
    assert "What each size is expected to lose" in page
    assert "http" not in page.split("<body")[1].split("<script")[0]
    assert "What was measured" in (out / "README.md").read_text()
    call("compress", vit, "--images", "embedded:digits", "--limit", 40, "--macs", 0.8, "--out", out)  # once more
    said = capsys.readouterr().out
    assert "cosine of the final feature" in said.replace("\n", " ")
    assert (out / "report.html").is_file()


def test_a_language_model(language_folder, tmp_path, capsys):
    out = tmp_path / "smaller"
    words = ["compress", f"hf:{language_folder}", "--text", "embedded:stdlib", "--limit", 8, "--length", 48]
    assert call(*words, "--parameters", 0.9, "--no-depth", "--out", out, "--quiet") == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    lm = dw.load_lm(f"file:{out}")
    assert lm.tokenizer("a word").input_ids
    assert json.loads((out / "compression.json").read_text())["after"]["parameters"] == sum(
        p.numel() for p in lm.model.parameters()
    )


def test_a_dry_run_writes_nothing(vit, tmp_path, capsys):
    out = tmp_path / "smaller"
    words = ["compress", vit, "--images", "embedded:digits", "--parameters", 0.67, "--out", out, "--dry-run"]
    assert call(*words) == 0
    assert "67% of the parameters" in capsys.readouterr().out
    assert call(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"] == sum(p.numel() for p in dw.load(vit).parameters())
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "embedded:digits"], "no budget"),
        (["--parameters", 0.5], "neither images nor text"),
        (["--parameters", 0.5, "--images", "embedded:digits", "--budget", "20min"], "one piece of work"),
        (["--parameters", 0.5, "--images", "embedded:digits", "--text", "embedded:stdlib"], "images and text both"),
        (["--parameters", -1, "--images", "embedded:digits"], "parameters=-1"),
        (["--parameters", 0.5, "--images", "embedded:digit"], "did you mean 'digits'"),
        (["--parameters", 0.5, "--text", "embedded:stdlib"], "is no language model"),
        (["--parameters", 0.5, "--images", "embedded:digits", "--no-widths", "--no-sharing", "--no-depth"], "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_clear_error(words, said, vit, tmp_path):
    with pytest.raises(dw.DeadweightError, match=said):
        call("compress", "embedded:digits-vit" if "--text" in words else vit, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_things_in_the_folder_are_left_alone(vit, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(dw.InputError, match="holds other things"):
        call("compress", vit, "--images", "embedded:digits", "--limit", 20, "--parameters", 0.9, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
