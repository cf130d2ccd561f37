"""A package of somebody else's: installed, found through its entry points, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "deadweight-example"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    target = tmp_path_factory.mktemp("plugins")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(target), str(PACKAGE)],
        check=True, capture_output=True,
    )  # fmt: skip
    path = os.pathsep.join([str(target), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
            text=True, cwd=target,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


LISTED = [("mechanisms", "alibi"), ("probes", "token_length"), ("tasks", "embedded:tense")]


@pytest.mark.parametrize(("what", "name"), LISTED)
def test_its_things_are_listed_beside_ours(python, what, name):
    rows = json.loads(python("-W", "ignore", "-m", "deadweight", "list", what, "--json"))
    (about,) = [row["about"] for row in rows if row["name"] == name]
    assert about


def test_its_mechanism_is_causal_and_decodes_as_it_prefills(python):
    python(
        "-c",
        "import torch, deadweight as dw\n"
        "torch.manual_seed(0)\n"
        "m = dw.mechanism('alibi', dim=32, heads=4).double()\n"
        "x = torch.randn(2, 9, 32, dtype=torch.float64)\n"
        "whole = m(x)\n"
        "later = x.clone(); later[:, 5:] += 1\n"
        "assert torch.equal(m(later)[:, :5], whole[:, :5])\n"
        "assert not torch.equal(m(later)[:, 5:], whole[:, 5:])\n"
        "first, cache = m(x[:, :4], cache=m.new_cache(2))\n"
        "rest = [first]\n"
        "for t in range(4, 9):\n"
        "    step, cache = m(x[:, t : t + 1], cache=cache)\n"
        "    rest.append(step)\n"
        "torch.testing.assert_close(torch.cat(rest, 1), whole, rtol=1e-12, atol=1e-12)\n",
    )


def test_its_probe_is_a_column_of_the_profile(python):
    python(
        "-W", "ignore", "-c",
        "import torch, deadweight as dw\n"
        "torch.manual_seed(0)\n"
        "model, x = dw.load('timm:test_vit?pretrained=false'), torch.randn(2, 3, 160, 160)\n"
        "table = dw.profile(model, [(x,)], probes=['token_length', 'influence']).table()\n"
        "with torch.no_grad():\n"
        "    tokens = model._pos_embed(model.patch_embed(x))[:, 1:]\n"
        "want = tokens.double().norm(dim=-1).mean()\n"
        "torch.testing.assert_close(torch.tensor(table['token_length'][0]), want, rtol=1e-5, atol=0)\n",
    )  # fmt: skip


def test_its_task_is_asked_like_any_other(python):
    python(
        "-c",
        "import deadweight as dw\n"
        "task = dw.load_task('embedded:tense')\n"
        "assert task.labels == ('past', 'future') and len(task.items) == 12\n"
        "assert task.prompt([(task.items[0], 'past')], task.items[-1]).endswith('Tense:')\n",
    )


def test_a_study_takes_its_mechanism_by_name(python):
    planned = json.loads(
        python("-W", "ignore", "-m", "deadweight", "attention", "--mechanisms", "alibi", "--mechanisms", "sdpa",
               "--dry-run", "--json")
    )  # fmt: skip
    assert "alibi" in json.dumps(planned["cells"])
