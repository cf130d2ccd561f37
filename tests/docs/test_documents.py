"""What the documents say exists does exist: links, make targets, commands."""

import re
import shlex
from pathlib import Path

import pytest

from deadweight.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def _commands(text):
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language not in ("sh", "bash", "console", ""):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            yield line.split("  #")[0].strip().removeprefix("$ ")


@pytest.mark.parametrize("path", DOCUMENTS, ids=_ids(DOCUMENTS))
def test_every_relative_link_leads_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_ids(DOCUMENTS))
def test_every_command_is_understood(path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in _commands(path.read_text()):
        words = shlex.split(command, comments=True)
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, command
        if words[:1] == ["deadweight"]:
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


def _named_tests():
    text = (ROOT / "docs/explanation/published-comparisons.md").read_text()
    return sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)))


@pytest.mark.parametrize(("path", "name"), _named_tests())
def test_what_is_said_to_be_tested_is_tested(path, name):
    assert f"def {name}(" in (ROOT / path).read_text()


def test_the_readme_starts_with_the_two_commands():
    commands = [command for command in _commands((ROOT / "README.md").read_text()) if command]
    assert [command.split("  ")[0] for command in commands[:2]] == ["make audit", "make test"]


def test_the_cells_of_the_readme_are_the_audits():
    """A key changes with a cell's options and code; the README's commands name keys."""
    from deadweight.studies.audit import AuditStudy
    from deadweight.studies.frame.run import plan

    named = set(re.findall(r"audit/cells/([0-9a-f]{16})", (ROOT / "README.md").read_text()))
    trained = {cell.key for cell in plan(AuditStudy()).cells if cell.kind == "train"}
    assert named <= trained
