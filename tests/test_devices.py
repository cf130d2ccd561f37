"""On tensors that say they lie on a GPU nothing mixes devices, and the results are those of the CPU.

Not tested so: training, for there are no gradients, and `compress`, which counts on PyTorch's own pretence (meta).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
BEGIN = """
import copy
import sys

import torch
from gpu_sections.correct_parts import ANSWERS, PROMPTS, SURGERIES
from gpu_sections.small_models import language, pictures, vision
from pretend_gpu import DEVICE, Far, PretendGpu, moved

import deadweight as dw

torch.set_grad_enabled(False)
torch.set_num_threads(1)


def same(name, found, wanted):
    far = found.near if isinstance(found, Far) else found
    torch.testing.assert_close(far, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    sys.stdout.write(f"{name}\\n")


"""
PARTS = {
    "mechanisms": """
draw = torch.Generator().manual_seed(0)
for name in dw.MECHANISMS.names():
    for tokens in (40, 1100):
        here, x = dw.mechanism(name, 32, 2), torch.randn(2, tokens, 32, generator=draw)
        wanted = here(x)
        with PretendGpu():
            there = moved(copy.deepcopy(here))
            same(f"{name}, {tokens} tokens", there(x.to(DEVICE)), wanted)
            cache, parts = there.new_cache(2), []
            for part in torch.split(x.to(DEVICE), [20, 1, 1, tokens - 22], 1):
                y, cache = there(part, cache)
                parts.append(y)
            same(f"{name}, decoding", torch.cat(parts, 1), wanted)
            assert all(isinstance(kept, Far) for kept in cache.tensors.values())
""",
    "surgeries": """
model, images = vision(3).float(), pictures(48).float()
for name, cut in SURGERIES.items():
    wanted = cut(model, [images])(images)
    with PretendGpu():
        for place in ("cpu", DEVICE):  # calibration inputs may lie on either
            found = cut(moved(copy.deepcopy(model)), [images.to(place)])(images.to(DEVICE))
            assert isinstance(found, Far)
            same(name, found, wanted)
""",
    "profile": """
model, batches = vision(3).float(), [(pictures(24, seed).float(), torch.arange(24) % 4) for seed in range(2)]
wanted = dw.profile(model, batches).table()
with PretendGpu():
    found = dw.profile(moved(copy.deepcopy(model)), batches).table()
for name in wanted.select_dtypes("number"):
    same(name, torch.tensor(found[name].to_numpy()), torch.tensor(wanted[name].to_numpy()))
""",
    "scorer": """
lm = language()
wanted = dw.score_labels(dw.LanguageModel(lm.model.float(), lm.tokenizer, lm.name, 8192), PROMPTS, ANSWERS)
with PretendGpu():
    there = dw.LanguageModel(moved(copy.deepcopy(lm.model)), lm.tokenizer, lm.name, 8192)
    same("labels", dw.score_labels(there, PROMPTS, ANSWERS), wanted)
""",
}
LINES = {"mechanisms": 4 * 13, "surgeries": 2 * 7, "profile": 15, "scorer": 1}


def run(code):
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_on_a_pretended_gpu_it_is_as_on_the_cpu(part):
    done = run(PARTS[part])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= LINES[part]


REFUSED = """
def problem(work):
    try:
        work()
    except RuntimeError as refused:
        return str(refused)
    return ""


with PretendGpu():
    far, near = torch.ones(3).to(DEVICE), torch.ones(3)
    assert "tensors on cuda:0 and on the CPU" in problem(lambda: far + near)
    assert "tensors on cuda:0 and on the CPU" in problem(lambda: torch.cat([near, far]))
    assert "tensors on cuda:0 and on the CPU" in problem(lambda: near[far.long()])
    assert "numpy" in problem(lambda: far.numpy())
    assert (far + 1).device == DEVICE and far[near.long()].device == DEVICE  # a CPU's indices are allowed
    same("moved back", (far + torch.tensor(1.0)).cpu(), near + 1)
"""


def test_the_pretence_refuses_what_a_gpu_would():
    done = run(REFUSED)
    assert done.returncode == 0, done.stderr
