"""Labels, texts, model and file names that were written to do harm: shown as what they are, everywhere they go."""

import csv
import io
import re
import shlex
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
import toy_study  # noqa: F401  # registers the study
from rich.console import Console

from deadweight.cli import main
from deadweight.lab import Cell, Store, run_cells
from deadweight.lab.progress import Watch
from deadweight.runs.export import csv_text, findings_frame, latex_text, records_frame, write_table
from deadweight.studies import build_study
from deadweight.studies.frame.run import run
from deadweight.studies.frame.study import command_line

pytestmark = pytest.mark.slow

XSS = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'&<!--"
SHELL = "$(touch hacked)`touch hacked`; touch hacked | touch hacked && touch hacked\n'touch hacked' \"touch hacked\""
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\x08\x9b2J\u202edesrever"
FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "|calc", "%0A=1", "=cmd|' /C calc'!A0",
            " =1+1", "\u00a0=1", "\ufeff=1", "＝1+1", "\x00=1"]  # fmt: skip
LATEX = r"\input{/etc/passwd} $x^2$ % # & _ {} ~ ^ \write18{touch hacked}"


class _Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def _harmless(html):
    policy = next(found["content"] for tag, found in _Page(html).tags if found.get("http-equiv"))
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    for tag, attributes in _Page(html).tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("img", "iframe", "object", "embed", "base", "form"), attributes
        for name in ("href", "src", "action", "xlink:href"):
            assert re.match(r"^(#|data:|$)", attributes.get(name) or ""), attributes


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run whose every text is hostile, one of its cells failing with hostile words."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    study = build_study("toy", {"count": 2, "name": XSS + SHELL + TERMINAL + FORMULAS[0], "whats": ["raise"]})
    return run(study, folder), folder


def test_the_page_of_hostile_names_runs_nothing(told):
    _, folder = told
    html = (folder / "report.html").read_text()
    assert "window.hacked" in html, "the text is shown"
    _harmless(html)


def test_the_page_test_would_notice():
    safe = "<meta http-equiv=x content=\"script-src 'sha256-x'\">"
    for bad in ("<img src=x>", "<p onclick=1>", "<a href='javascript:1'>"):
        with pytest.raises(AssertionError):
            _harmless(safe + bad)


def test_tasks_of_hostile_texts_and_labels(tmp_path, language_folder):
    """All the way: a CSV of anybody's, through a language model, to page, tables and terminal."""
    file = tmp_path / "it's <b>=1+1 $(touch hacked).csv"
    rows = [(f"{XSS} {n} {TERMINAL}", (XSS, "=1+1")[n % 2]) for n in range(12)]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows])
    options = {"language": f"hf:{language_folder}", "tasks": [f"csv:{file}"], "k": [1], "seeds": [0], "limit": 6}
    records = run(build_study("icl", options), tmp_path / "run")
    assert not records.failed, records.failed[0].error
    _harmless((tmp_path / "run" / "report.html").read_text())
    for finding in records.findings():
        words = shlex.split(finding.command)  # one command, whose words are the words given
        assert words[0] == "deadweight"
        assert f"csv:{file}" in words
    assert not list(tmp_path.rglob("hacked"))


def test_a_shell_takes_a_command_for_what_it_says(tmp_path):
    options = {"name": SHELL, "images": XSS, "text": ["-rf", "a b", ""]}
    line = command_line("run", options)
    shown = subprocess.run(["bash", "-c", f"deadweight() {{ printf '%s\\0' \"$@\"; }}; {line}"], cwd=tmp_path,
                           capture_output=True, text=True, check=True).stdout.split("\0")[:-1]  # fmt: skip
    assert shown == ["run", "--name", SHELL, "--images", XSS, "--text", "-rf", "--text", "a b", "--text", ""]
    assert not list(tmp_path.iterdir())


def test_no_cell_of_a_csv_is_a_formula(told):
    records, _ = told
    frame = pd.DataFrame({text: [text, text.lower()] for text in [*FORMULAS, "plain", "a,b\nc"]})
    for table in (frame, records_frame(records), findings_frame(records.findings())):
        back = list(csv.reader(io.StringIO(csv_text(table))))
        assert len(back) == len(table) + 1
        for text in (text for row in back for text in row):
            stripped = text.lstrip(" \u00a0\ufeff\x00")
            assert not stripped.startswith(("=", "+", "@", "\t", "\r", "\n", "|", "%", "＝")), text
            assert not stripped.startswith("-") or re.fullmatch(r"-\d+(\.\d+)?(e[+-]\d+)?", stripped), text


def test_numbers_stay_numbers_in_a_csv():
    frame = pd.DataFrame({"x": [-1.5, 2e-300], "n": [-3, 4]})
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(csv_text(frame))), frame)


@pytest.mark.parametrize("text", [LATEX, XSS, SHELL, *FORMULAS[:4]], ids=lambda text: text[:12])
def test_no_cell_of_a_latex_table_is_a_command(text):
    body = latex_text(pd.DataFrame({"name": [text]})).split(r"\midrule")[1].split(r"\bottomrule")[0]
    kept = body.replace(r"\textbackslash", "").replace(r"\textasciitilde", "").replace(r"\textasciicircum", "")
    left = re.sub(r"\\[%$#&_{}]|\\\\\s*$", "", kept.strip())
    assert not re.search(r"\\|(?<!\\)[%$#&^~]", left.replace(r"\space", "")), left


def test_parquet_holds_the_very_text(tmp_path):
    frame = pd.DataFrame({"name": [XSS, SHELL, TERMINAL, *FORMULAS]})
    write_table(frame, tmp_path / "t.parquet", "parquet")
    assert list(pd.read_parquet(tmp_path / "t.parquet")["name"]) == list(frame["name"])


def _unarmed(text):
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_a_terminal_is_told_nothing_but_text(tmp_path, capsys, told):
    _, folder = told
    for arguments in (["status", str(folder)], ["report", str(folder)], ["diff", str(folder), str(folder)],
                      ["run", str(folder / "study.yaml"), "--out", str(tmp_path / "x"), "--dry-run"]):  # fmt: skip
        with pytest.raises(SystemExit):
            main(arguments)
        out, err = capsys.readouterr()
        assert _unarmed(out), arguments
        assert _unarmed(err), arguments


def test_a_log_and_a_live_table_are_told_nothing_but_text(tmp_path):
    shown = io.StringIO()
    watch = Watch(Console(file=shown, force_terminal=False, color_system=None, width=200))
    cells = [Cell("toy" + TERMINAL, "square", {"name": TERMINAL, "number": number}) for number in (1, 2)]

    def work(cell, bench):
        bench.note(TERMINAL, 0.5)
        watch.console.print(watch.table())  # what a terminal would show now
        raise RuntimeError(TERMINAL)

    with watch:
        run_cells(cells, work, Store(tmp_path), observer=watch)
    assert shown.getvalue().count("owned") > 6
    assert _unarmed(shown.getvalue())
