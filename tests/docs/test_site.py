"""The site builds with warnings as errors, needs no network, and its reference follows the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deadweight as dw
from deadweight.cli import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference" / "python.html").read_text()
    missing = [name for name in dw.__all__ if not name.startswith("__") and not re.search(rf"\b{name}\b", page)]
    assert missing == []


def test_the_newcomers_walk_reads_the_readme():
    import importlib.util

    spec = importlib.util.spec_from_file_location("newcomer", ROOT / ".ci" / "newcomer.py")
    newcomer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(newcomer)
    typed = newcomer.commands(ROOT / "README.md")
    assert typed[:2] == ["make audit", "make test"]
    assert all(line.startswith(("make", "deadweight")) for line in typed)


def test_every_command_is_in_the_reference(site):
    page = (site / "reference" / "command-line.html").read_text()
    assert all(f"deadweight {name}" in page for name in app if not name.startswith("-"))


def test_tutorials_show_their_outputs(site):
    page = (site / "tutorials" / "a-vision-model.html").read_text()
    assert "raw_similarity" in page
    assert "<script>alert" not in page


def test_no_page_asks_for_anything_from_elsewhere(site):
    for path in site.glob("**/*.html"):
        asked = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert asked == [], path
