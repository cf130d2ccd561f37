"""A grouped ViT on two processes: the single process's losses and weights, under DDP and under FSDP2."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deadweight.errors import MachineError
from deadweight.training import Recipe, sharing_groups, train

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_processes.py")
HERE = runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found: {rank: told}, {rank: weights}."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = {rank: json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)}
    assert [told[rank]["processes"] for rank in (0, 1)] == [2, 2]
    return told, {rank: torch.load(folder / f"{rank}.pt") for rank in (0, 1)}, folder


@pytest.fixture(scope="module")
def one():
    """The same training in this process."""
    net = HERE["grouped"]()
    return train(net, HERE["DATA"], Recipe(**HERE["RECIPE"]), device="cpu"), net


@pytest.mark.parametrize("which", ["curves", "halved"])
@pytest.mark.parametrize("rank", [0, 1])
def test_ddp_gives_the_single_process_curves(which, rank, one, two):
    curves, _ = one
    found = two[0][rank][which]
    for name in ("train_loss", "loss", "ema_loss"):
        np.testing.assert_allclose(found[name], getattr(curves, name), atol=1e-5, err_msg=name)
    assert found["top1"] == curves.top1
    assert found["lr"] == curves.lr


def test_both_processes_end_with_the_same_weights_and_those_of_one_process(one, two):
    _, net = one
    for name, value in net.state_dict().items():
        first, second = (two[1][rank]["ddp"][name] for rank in (0, 1))
        assert torch.equal(first, second)
        if not name.endswith("qkv.bias"):  # a key's bias has no gradient but rounding, which Adam makes steps of
            torch.testing.assert_close(first, value, rtol=1e-3, atol=2e-5, msg=name)
    shared = two[1][0]["ddp"]
    assert torch.equal(shared["blocks.0.mlp.fc1.weight"], shared["blocks.2.mlp.fc1.weight"])


def test_only_one_process_writes_the_checkpoint_and_all_read_it(two):
    assert all(two[0][rank]["again"] == two[0][rank]["curves"] for rank in (0, 1))
    assert [path.name for path in (two[2] / "kept").iterdir()] == ["step-000000020"]


def test_a_loss_that_is_no_number_in_one_process_stops_both(two):
    assert {two[0][rank]["stopped"] for rank in (0, 1)} == {"the loss became nan at step 3 (epoch 1)"}


def test_fsdp2_shards_a_shared_tensor_once(two):
    net = HERE["grouped"]()
    images, labels = HERE["DATA"].train.tensors
    losses = HERE["plain_steps"](net, images, labels)
    means = np.mean([two[0][rank]["sharded"] for rank in (0, 1)], axis=0)
    np.testing.assert_allclose(means, losses, atol=1e-5)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(two[1][0]["fsdp"][name], value, rtol=1e-3, atol=1e-5, msg=name)
    unique = sum(weight.numel() for weight in net.parameters())
    assert unique <= sum(two[0][rank]["held"] for rank in (0, 1)) <= 1.05 * unique


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("adjacent", [[0, 1], [2, 3]]), ("strided", [[0, 2], [1, 3]]), ([[0, 3], [1], [2]], [[0, 3], [1], [2]])],
    ids=str,
)
def test_sharing_groups(pattern, expected):
    from deadweight.loading import load
    from deadweight.surgery import group_mlps

    net = group_mlps(load("embedded:digits-vit", depth=4, embed_dim=16, num_heads=2), pattern=pattern)
    index = {block: number for number, block in enumerate(net.blocks)}
    assert [[index[block] for block in group] for group in sharing_groups(net)] == expected


def test_chains_of_sharing_are_one_group():
    from deadweight.loading import load

    net = load("embedded:digits-vit", depth=4, embed_dim=16, num_heads=2)
    net.blocks[0].mlp.fc1 = net.blocks[3].mlp.fc1
    net.blocks[2].mlp.fc2 = net.blocks[3].mlp.fc2
    assert [len(group) for group in sharing_groups(net)] == [3, 1]


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launcher that starts one process of two leaves it
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(MachineError, match="2 processes were started and accelerate sees 1"):
        train(HERE["grouped"](), HERE["DATA"], Recipe(**HERE["RECIPE"]), device="cpu")
