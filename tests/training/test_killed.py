"""kill -9 in the middle of an epoch: the run that goes on reaches the weights of one that was never stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from deadweight.data import load_images
from deadweight.loading import load
from deadweight.surgery import group_mlps
from deadweight.training import Recipe, train

pytestmark = pytest.mark.slow

SETTINGS = {
    "epochs": 3, "batch_size": 16, "warmup_epochs": 1, "lr": 2e-3, "augment": "rand-m9-mstd0.5-inc1", "repeats": 3,
    "crop": (0.5, 1.0), "mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25, "drop_path": 0.1, "ema_decay": 0.9,
    "accumulation": 2,
}  # fmt: skip
CHILD = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from deadweight.training import loop
import test_killed
loop.LOOK_STEPS = 1
data, net = test_killed.everything()
test_killed.train(net, data, test_killed.Recipe(**test_killed.SETTINGS), folder=Path(sys.argv[2]), device="cpu",
                  checkpoint_seconds=0)
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


def everything():
    torch.manual_seed(0)
    net = load("embedded:digits-vit", patch_size=4, embed_dim=16, depth=2, num_heads=2, weight_init="jax")
    return load_images("embedded:digits", limit=160), group_mlps(net, scale=2**-0.5, inplace=True)


def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path):
    kept = tmp_path / "kept"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, os.path.dirname(__file__), str(kept)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    end = time.monotonic() + 120
    while not any(int(path.name[5:]) > 12 for path in kept.glob("step-*")):  # ten updates an epoch
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = max(int(path.name[5:]) for path in kept.glob("step-*"))
    assert 12 < reached < 30
    data, resumed = everything()
    steps = []
    resumed.register_forward_pre_hook(lambda module, args: steps.append(module.training))
    curves = train(resumed, data, Recipe(**SETTINGS), folder=kept, device="cpu")
    assert sum(steps) == 2 * (30 - reached)
    _, whole = everything()
    assert train(whole, data, Recipe(**SETTINGS), device="cpu") == curves
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed.blocks[0].mlp is resumed.blocks[1].mlp
