"""No network unless a source names it: every attempt to look up a name or to connect ends the process that made it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_WATCHED = """
import os, sys
LOCAL = ("127.0.0.1", "::1", "localhost")
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"):
        if arguments[0] not in (None, *LOCAL):
            os.write(2, f"NETWORK {event} {arguments}\\n".encode()); os._exit(99)
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in LOCAL:
        os.write(2, f"NETWORK {event} {arguments}\\n".encode()); os._exit(99)
sys.addaudithook(watch)
sys.argv = ["deadweight", *sys.argv[1:]]
from deadweight.cli import main
main()
"""


def _watched(tmp_path, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1] / "support"), environment["PYTHONPATH"]])
    return subprocess.run([sys.executable, "-c", _WATCHED, *arguments], capture_output=True, text=True, cwd=tmp_path,
                          env=environment, check=False, timeout=250)  # fmt: skip


_TINY = (
    "study: mlp\nlimit: 60\nepochs: 1\ndim: 16\ndepth: 2\nheads: 2\npatch_size: 4\nvariants: [baseline]\nseeds: [0]\n"
)


def test_embedded_sources_ask_nobody(tmp_path):
    (tmp_path / "s.yaml").write_text(_TINY)
    done = _watched(tmp_path, "run", "s.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
@pytest.mark.parametrize(
    "arguments",
    [
        ["depth", "--vision", "embedded:digits-vit", "--limit", "60"],
        [
            "depth",
            "--vision",
            "timm:vit_tiny_patch16_224?pretrained=false",
            "--images",
            "embedded:digits?classes=none",
            "--limit",
            "20",
        ],
        ["attention", "--mechanisms", "sdpa", "--steps", "2", "--budget", "30s"],
        ["icl", "--dry-run"],
        ["audit", "--dry-run"],
        ["doctor"],
        ["list", "models"],
        ["run", "mini-2511.21635", "--executor", "ray", "--limit", "60"],
    ],
    ids=lambda arguments: "-".join(arguments)[:30],
)
def test_none_of_the_verbs_asks_anybody(tmp_path, arguments):
    done = _watched(tmp_path, *arguments)
    assert "NETWORK" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2), done.stderr


def test_a_source_of_the_hub_does_ask(tmp_path):
    """The watch would notice."""
    done = _watched(tmp_path, "depth", "--vision", "timm:vit_tiny_patch16_224", "--dry-run")
    assert done.returncode == 99
    assert "NETWORK" in done.stderr
