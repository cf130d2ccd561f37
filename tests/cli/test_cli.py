"""The command line as a person meets it: exit codes, errors, help."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deadweight.cli import app, main

pytestmark = pytest.mark.slow

COMMANDS = [
    "audit", "mlp", "depth", "icl", "attention", "run", "report", "status", "export", "diff", "list", "doctor",
    "recommend", "completion", "compress",
]  # fmt: skip


def _call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = _call(capsys, command, "--help")
    assert code == 0
    assert f"Example: deadweight {command}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_the_help_is_understood(command):
    text = " ".join(app[command].default_command.__doc__.split())
    example = text.split("Example: deadweight ")[1].split(" Args:")[0].split()
    called, bound, _ = app.parse_args(example, exit_on_error=False, print_error=False)
    assert called is app[command].default_command
    assert bound is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "--vison", "x"], "Did you mean --vision"),
        (["audit", "--images", "foldr:x", "--out", "{out}"], "did you mean 'folder'"),
        (["audit", "--vision", "timm:vit_base_patch16_224", "--out", "{out}"], "?pretrained=false"),
        (["audit", "--language", "hf:/nowhere/at/all", "--out", "{out}"], "no such folder"),
        (["run", "mini-2512.0105"], "did you mean 'mini-2512.01059'"),
        (["list", "mechanism"], "did you mean 'mechanisms'"),
        (["report", "/nowhere/at/all"], "not a run folder"),
        (["recommend", "/nowhere/at/all"], "no findings"),
        (["recommend"], "one or more run folders"),
        (["report", "/nowhere/at/all", "/nor/here"], "no findings"),
        (["completion", "tcsh"], "bash"),
        (["mlp", "--budget", "soon"], "20min"),
        (["mlp", "--limit", "0"], "limit = 0: Input should be greater than 0"),
        (["mlp", "--limit", "-3"], "limit = -3: Input should be greater than 0"),
        (["mlp", "--limit", "2.5"], "--limit: '2.5' is no whole number"),
        (["mlp", "--seed", "-1"], "seed = -1: Input should be greater than or equal to 0"),
        (["mlp", "--seeds", "1", "--seeds", "2.6"], 'unable to convert "2.6" into int'),
        (["run", "mini-2512.01059", "--jobs", "1.5"], "--jobs: '1.5' is no whole number"),
        (["compress", "embedded:digits-vit", "--images", "embedded:digits", "--limit", "0"], "limit = 0"),
        (["compress", "embedded:digits-vit", "--images", "embedded:digits", "--length", "0"], "length = 0"),
        (["compress", "embedded:digits-vit", "--images", "embedded:digits", "--seed", "-1"], "seed = -1"),
        (["compress", "embedded:digits-vit", "--images", "embedded:digits", "--distill", "1e3"], "no whole number"),
        (["mlp", "--dtype", "int8"], "float32"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_error_and_code_2(capsys, tmp_path, arguments, message):
    code, out, err = _call(capsys, *[part.format(out=tmp_path / "out") for part in arguments])
    assert code == 2
    assert message.lower() in " ".join((out + err).split()).lower()
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_code_3(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, err = _call(capsys, "mlp", "--out", str(tmp_path / "file" / "run"), "--limit", "40", "--epochs", "1")
    assert code == 3
    assert "--out" in err


def test_a_dry_run_plans_and_does_nothing(capsys, tmp_path):
    code, out, _ = _call(capsys, "mlp", "--dry-run", "--json", "--out", str(tmp_path / "run"))
    planned = json.loads(out)
    assert code == 0
    assert {cell["cell"]["study"] for cell in planned["cells"]} == {"mlp"}
    assert planned["seconds"] > 0
    assert planned["bytes"] > len(planned["cells"]) * 1000
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_minutes_and_bytes(capsys):
    assert re.search(r"\d+ cells, about [\d.]+ minutes and \d+ [kM]B on disk", _call(capsys, "mlp", "--dry-run")[1])


@pytest.mark.parametrize("command", ["audit", "mlp", "depth", "icl", "attention", "run"])
def test_every_command_that_computes_takes_the_same_options(capsys, command):
    _, out, _ = _call(capsys, command, "--help")
    for option in (
        "out",
        "device",
        "dtype",
        "seed",
        "limit",
        "budget",
        "dry-run",
        "json",
        "margin",
        "quiet",
        "verbose",
    ):
        assert f"--{option} " in out


@pytest.mark.parametrize("what", ["models", "data", "tasks", "mechanisms", "probes", "studies"])
def test_everything_there_is_to_choose_from_is_listed_with_a_word_about_it(capsys, what):
    code, out, _ = _call(capsys, "list", what, "--json")
    rows = json.loads(out)
    assert code == 0
    assert rows
    assert all(row["name"] and row["about"] for row in rows)


def test_the_doctor_says_what_to_do_about_what_is_missing(capsys):
    code, out, _ = _call(capsys, "doctor", "--json")
    checks = json.loads(out)
    assert code == 0
    energy = [check for check in checks if check["what"].startswith("energy")]
    assert energy
    assert all(check["good"] or check["cure"] for check in energy)


def test_a_budget_that_ends_first_is_code_1_and_the_next_run_goes_on(capsys, tmp_path):
    base = ["mlp", "--out", str(tmp_path / "run"), "--limit", "40", "--epochs", "1", "--seeds", "0", "--json"]
    assert _call(capsys, *base, "--budget", "0s")[0] == 1
    code, out, _ = _call(capsys, *base)
    assert code == 0
    assert json.loads(out)["findings"]
    code, again, _ = _call(capsys, "report", str(tmp_path / "run"), "--json")
    assert (code, json.loads(again)) == (0, json.loads(out))
    code, out, err = _call(capsys, *base[:-1], "--quiet")
    assert (code, out, err) == (0, f"{tmp_path / 'run' / 'report.html'}\n", "")
    _check_what_follows(capsys, tmp_path / "run")


def _check_what_follows(capsys, run):
    """The verbs that read a run's folder."""
    code, out, _ = _call(capsys, "recommend", str(run), str(run), "--json")
    advice = json.loads(out)
    assert code == 0
    assert len(advice) % 2 == 0
    assert {"run", "id", "verdict", "do", "command"} <= set(advice[0])
    assert "\x1b" not in _call(capsys, "recommend", str(run))[1]
    other = shutil.copytree(run, run.parent / "other")
    page = run.parent / "both.html"
    code, out, _ = _call(capsys, "report", str(run), str(other), "--out", str(page))
    assert (code, out) == (0, f"{page}\n")
    assert "0 of them got different verdicts" in page.read_text()


def test_verbose_tells_the_whole_error_of_a_failed_cell(capsys, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("first line\nand what is behind it")

    monkeypatch.setattr("deadweight.studies.mlp.study.MlpStudy.run", broken)
    command = ["mlp", "--out", str(tmp_path / "run"), "--limit", "40", "--epochs", "1", "--seeds", "0"]
    assert "and what is behind it" in _call(capsys, *command, "--verbose")[2]


def test_a_reader_that_has_had_enough_is_no_error():
    command = f"{sys.executable} -m deadweight completion bash"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] in ("0", "141")  # 0 where all of it fitted into the pipe
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands_and_options(capsys, shell):
    code, out, _ = _call(capsys, "completion", shell)
    assert code == 0
    assert all(word in out for word in ("audit", "recommend", "mechanisms", "dry-run"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_a_folder_that_goes_on(tmp_path, number, code):
    command = [sys.executable, "-m", "deadweight", "mlp", "--out", str(tmp_path / "run"), "--limit", "40"]
    running = subprocess.Popen(
        [*command, "--epochs", "400", "--seeds", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job may ignore Ctrl-C
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "cells").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert "Traceback" not in err


def test_importing_the_package_is_cheap():
    probe = "import sys, deadweight; print(int('torch' in sys.modules), int('pandas' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.split() == ["0", "0"]


def test_the_door_opens_on_everything_it_names():
    import deadweight as dw

    assert all(getattr(dw, name) is not None for name in dw.__all__)
    assert callable(dw.anatomy)
    with pytest.raises(AttributeError, match="no attribute 'profil'"):
        dw.profil


def test_ctrl_c_says_what_is_kept(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("deadweight.studies.catalogue.catalogue", interrupted)
    monkeypatch.setattr("deadweight.cli._deaf", lambda: None)  # this process goes on
    code, _, err = _call(capsys, "list", "studies")
    assert code == 130
    assert "what is finished is kept" in err
