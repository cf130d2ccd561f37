"""What a bare machine lacks, and that what needs none of it works without it."""

import os
import re
import subprocess
import sys

import gpu_wheels
import pytest
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

LISTED = re.findall(r"^([\w.-]+)==(\S+)  # ([\d.]+) MB$", gpu_wheels.FOUND.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_list_is_what_the_machine_lacks_and_fits():
    """`python benchmarks/gpu_wheels.py` makes it anew."""
    pytest.importorskip("lm_eval")
    assert {name for name, _, _ in LISTED} == set(gpu_wheels.needed(gpu_wheels.machine()))
    assert 1e6 * sum(float(size) for _, _, size in LISTED) < gpu_wheels.MOST


def test_nothing_that_the_machine_has_is_brought_along():
    there = gpu_wheels.machine()
    assert {"torch", "transformers", "timm", "numpy", "nvidia-ml-py"} <= set(there)
    assert not {name for name, _, _ in LISTED} & set(there)


def test_the_versions_there_are_new_enough_for_the_lower_bounds():
    there = gpu_wheels.machine()
    assert gpu_wheels.unfit(gpu_wheels.needed(there), there) == []
    older = {**there, "transformers": "4.57.0"}
    told = gpu_wheels.unfit({}, older)
    assert any("transformers" in line and "4.57.0" in line for line in told)


def test_a_machine_with_nothing_lacks_what_deadweight_asks_for():
    lacked = gpu_wheels.needed(gpu_wheels.machine("# a comment\npip\n"))
    assert {canonicalize_name(one.name) for one in gpu_wheels.asked_for()} - set(gpu_wheels.LEFT_OUT) <= set(lacked)


WITHOUT = """
import importlib.machinery
import sys

finder, blocked = importlib.machinery.PathFinder, {blocked!r}
found = finder.find_spec
finder.find_spec = lambda name, *more: None if name.partition(".")[0] in blocked else found(name, *more)
import torch
import deadweight as dw
from gpu_sections import SECTIONS, Plan, card
from gpu_sections.plan import attempt, row

try:
    import zeus
except ImportError:
    pass
else:
    raise SystemExit("nothing is blocked")

for name in dw.MECHANISMS.names():
    dw.mechanism(name, 32, 2)(torch.zeros(1, 5, 32))
model = dw.load("embedded:digits-vit", depth=2)
images = torch.rand(8, 1, 8, 8)
dw.profile(model, [(images, torch.arange(8) % 2)]).table()
dw.group_mlps(model), dw.shallow_mlps(model, keep=0.5), dw.drop_blocks(model, [1]), dw.scale_positions(model, 0.5)
with dw.measure() as cost:
    model(images)
dw.score_labels, dw.compress, dw.train, dw.Recipe, dw.save, dw.load_lm, dw.count, dw.idle_power
rows = []
for name in ("joules", "scorer", "speed"):
    with attempt(rows.append, name):
        SECTIONS[name].load()(Plan("cpu", rehearsal=True), rows.append)
card.card(Plan(), rows.append)
for one in rows:
    sys.stdout.write(f"{{one['name']}}: {{one['status']}}\\n")
"""


def test_without_any_of_the_wheels_the_rest_works_and_the_others_are_rows():
    packages = {name for name, _, _ in LISTED} | set(gpu_wheels.LEFT_OUT)
    blocked = sorted({name.replace("-", "_") for name in packages} | {"fla", "vl_convert", "flash_attn", "ray"})
    paths = [os.environ.get("PYTHONPATH", ""), str(gpu_wheels.ROOT / "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT.format(blocked=blocked)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    told = dict(line.rpartition(": ")[::2] for line in done.stdout.splitlines())
    assert told["joules"] == "missing"  # the study it is taken from is read by pydantic
    assert told["scorer over the harness, float32"] == "missing"
    assert told["retention, 320 tokens: fla"] == "missing"
    assert told["retention, 320 tokens: ours"] == "ok"
    assert told["energy counter"] == "missing"
    assert told["versions"] == "ok"
    assert "failed" not in {told["joules"], *(status for name, status in told.items() if "over" in name)}
