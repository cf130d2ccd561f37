"""Pickles are code: none is run, in whichever file of a stranger's it lies; code of others runs only when asked."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import deadweight as dw
from deadweight.errors import DeadweightError

pytestmark = pytest.mark.slow

SOURCE = Path(dw.__file__).parent


class _Trap:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def trap(tmp_path):
    """(bytes of a pickle that leaves a mark when it is read, the mark)."""
    marker = tmp_path / "hacked"
    content = pickle.dumps(_Trap(marker))
    pickle.loads(content)
    assert marker.exists(), "the trap works"
    marker.unlink()
    return content, marker


def test_a_hub_folder_with_pickled_weights_is_refused(tmp_path, trap, language_folder):
    content, marker = trap
    folder = shutil.copytree(language_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for form in ("plain", "zip"):
        if form == "plain":
            (folder / "pytorch_model.bin").write_bytes(content)
        else:
            torch.save({"weight": _Trap(marker)}, folder / "pytorch_model.bin")
        with pytest.raises(DeadweightError):
            dw.load(f"hf:{folder}")
        assert not marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "deadweight.json"])
def test_a_saved_model_that_is_a_pickle_is_refused(tmp_path, trap, name):
    content, marker = trap
    dw.save(dw.load("embedded:digits-vit"), tmp_path / "saved")
    (tmp_path / "saved" / name).write_bytes(content)
    with pytest.raises(DeadweightError):
        dw.load(f"file:{tmp_path / 'saved'}")
    assert not marker.exists()


def test_a_profile_that_is_a_pickle_is_refused(tmp_path, trap):
    content, marker = trap
    (tmp_path / "p.safetensors").write_bytes(content)
    with pytest.raises(DeadweightError):
        dw.DepthProfile.load(tmp_path / "p.safetensors")
    assert not marker.exists()


@pytest.mark.parametrize("scheme", ["parquet", "csv", "jsonl", "text", "gguf"])
def test_data_that_is_a_pickle_is_refused(tmp_path, trap, scheme):
    content, marker = trap
    (tmp_path / "data").write_bytes(content * 3)
    read = {"text": dw.load_text, "gguf": dw.load}.get(scheme, dw.load_task) if hasattr(dw, "load_text") else None
    if read is None:
        from deadweight.data import load_text

        read = {"text": load_text, "gguf": dw.load}.get(scheme, dw.load_task)
    with pytest.raises(DeadweightError):
        read(f"{scheme}:{tmp_path / 'data'}")
    assert not marker.exists()


def test_code_in_a_model_folder_is_not_run(tmp_path, language_folder):
    folder, marker = shutil.copytree(language_folder, tmp_path / "model"), tmp_path / "hacked"
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    for read in (dw.load, dw.load_lm):
        with pytest.raises(DeadweightError):
            read(f"hf:{folder}")
        assert not marker.exists()


def test_a_saved_models_manifest_names_no_code(tmp_path):
    dw.save(dw.load("embedded:digits-vit"), tmp_path / "saved")
    path = tmp_path / "saved" / "deadweight.json"
    manifest = json.loads(path.read_text())
    for change in (
        {"surgeries": [{"name": "os.system", "arguments": {"command": "touch hacked"}}]},
        {"architecture": {"library": "transformers", "class": "__builtins__", "config": {}}},
        {"architecture": {"library": "transformers", "class": "os", "config": {}}},
        {"class": "os.system", "architecture": None, "origin": None},
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DeadweightError):
            dw.load(f"file:{tmp_path / 'saved'}")


# Where reading a pickle is allowed, and why.
_ALLOWED = {
    ("lab/worker.py", "pickle.loads"): "what our own parent process sends through a pipe only it holds",
    ("lab/ray.py", "pickle.loads"): "what our own driver sends",
}
_RISKY = (
    "pickle.load", "pickle.loads", "torch.load", "numpy.load", "np.load", "joblib.load", "yaml.load", "eval", "exec",
    "os.system", "os.popen", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive", "marshal.loads",
    "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
)  # fmt: skip


def _calls():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _RISKY:
                yield str(path.relative_to(SOURCE)), ast.unparse(node.func), node


def test_nothing_in_the_source_opens_an_archive_or_runs_what_it_reads():
    found = list(_calls())
    assert found
    for path, name, node in found:
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", path
        elif name == "yaml.load":
            assert "_PlainLoader" in ast.unparse(node), path
        elif name in ("numpy.load", "np.load"):
            assert "allow_pickle" not in keywords, path
        elif name.startswith("subprocess."):
            assert not isinstance(node.args[0], (ast.JoinedStr, ast.Constant)), f"{path}: a list of words, not a text"
        else:
            assert (path, name) in _ALLOWED, f"{path} calls {name}"
        assert "shell" not in keywords, path
