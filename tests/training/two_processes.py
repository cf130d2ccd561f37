"""Run by torchrun: one model, one data set, trained on as many processes as were started."""

import json
import sys
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from deadweight.data import ImageData
from deadweight.loading import load
from deadweight.surgery import group_mlps
from deadweight.training import Diverged, Recipe, sharing_groups, train


class Labelled(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, int(label)


def pictures(count, seed):
    """One pattern a class under noise."""
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % 4
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Labelled(patterns[labels] + 0.3 * noise, labels)


DATA = ImageData("bars", pictures(44, 0), pictures(23, 1), ("a", "b", "c", "d"), 1, (8, 8), "bars-1")
RECIPE = {"epochs": 4, "batch_size": 8, "lr": 2e-3, "warmup_epochs": 1, "ema_decay": 0.9, "clip_grad": 1.0}


def grouped(seed=0):
    """Four blocks, two MLPs."""
    torch.manual_seed(seed)
    net = load(
        "embedded:digits-vit", patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=4, weight_init="jax"
    )
    return group_mlps(net, 2, scale=2**-0.5, pattern="strided", inplace=True)


def sharded_losses(steps=3):
    """AdamW on all images under FSDP2, the unit a sharing group; the whole weights at the end."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = grouped()
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for group in sharing_groups(net):
        fully_shard(group, mesh=mesh)
    fully_shard(net, mesh=mesh)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    images, labels = (part[rank::world] for part in DATA.train.tensors)
    losses = plain_steps(net, images, labels, steps)
    state = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    held = sum(weight.to_local().numel() for weight in net.parameters())
    return losses, state, held


def plain_steps(net, images, labels, steps=3):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, eps=1e-3)  # so large that rounding is no step
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def spoilt_on_one_process(rank):
    """A loss that is no number in one process stops all of them, at the same step."""
    net, calls = grouped(), []

    def spoil(module, args):
        calls.append(module.training)
        return (args[0] * float("nan"),) if rank == 1 and module.training and sum(calls) == 3 else None

    net.register_forward_pre_hook(spoil)
    try:
        train(net, DATA, Recipe(**RECIPE), device="cpu")
    except Diverged as problem:
        return problem.given
    return "nothing happened"


def main(folder):
    torch.set_num_threads(1)
    plain, halved = grouped(), grouped()
    curves = train(plain, DATA, Recipe(**RECIPE), device="cpu", folder=folder / "kept", checkpoint_seconds=0)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    again = train(grouped(), DATA, Recipe(**RECIPE), device="cpu", folder=folder / "kept")  # nothing is left to do
    told = {
        "processes": world,
        "again": again.as_json(),
        "curves": curves.as_json(),
        "halved": train(halved, DATA, Recipe(**RECIPE, accumulation=2), device="cpu").as_json(),
        "stopped": spoilt_on_one_process(rank),
    }
    told["sharded"], state, told["held"] = sharded_losses()
    torch.save({"ddp": plain.state_dict(), "fsdp": state}, folder / f"{rank}.pt")
    (folder / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
