"""How-tos do what they say: their Python is run as written, their commands as far as is quick."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deadweight.cli import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def _python(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


FOUND = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES = [name for page in FOUND if _python(name := str(page.relative_to(ROOT)))]


@pytest.mark.parametrize("page", PAGES)
def test_its_code_is_short_and_runs(page, tmp_path):
    blocks = _python(page)
    assert all(len(block.splitlines()) < 60 for block in blocks)
    program = tmp_path / "program.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _commands():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["deadweight"]:
                    yield pytest.param(words[1:], id=f"{path.stem}: {' '.join(words[1:])}"[:90])


PLACEHOLDERS = re.compile(r"my_|hf:|timm:|file:|ray|audit/|before/|after/|DIR|runs/|\.csv|\.ya?ml|http")


@pytest.mark.parametrize("words", _commands())
def test_commands_that_need_nothing_of_the_readers_run(words, capsys):
    """Those that compute are planned; those that name the reader's own things are only parsed, elsewhere."""
    if any(PLACEHOLDERS.search(word) for word in words[1:]):
        called, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert called is not None
        return
    plans = "--dry-run" in capsys.readouterr().out or words[0] in ("audit", "mlp", "depth", "icl", "attention", "run")
    extra = ["--dry-run"] if plans and "--dry-run" not in words else []
    assert app([*words, *extra], exit_on_error=False, result_action="return_value") == 0
