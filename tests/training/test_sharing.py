"""A shared tensor is one tensor to all that trains: gradients, norms, decay, averages, checkpoints, precision."""

import copy

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.utils import dispatch_clip_grad
from torch.nn.functional import cross_entropy

from deadweight.surgery import group_mlps
from deadweight.training.checkpoint import Progress, State, read_checkpoint, write_checkpoint

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 5


def grouped(**options):
    """Four blocks, two MLPs."""
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, num_heads=2, depth=4, num_classes=5, **options
    )
    return group_mlps(net, scale=2**-0.5, inplace=True)


def apart(model):
    """The same function with every block's MLP its own: the copy is made block by block."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.mlp = copy.deepcopy(block.mlp)
    return model


def unique(model):
    return {id(weight): weight for weight in model.parameters()}


def test_a_shared_gradient_is_the_sum_over_its_blocks():
    model = grouped().double()
    other = apart(model)
    for net in (model, other):
        cross_entropy(net(IMAGES.double()), LABELS).backward()
    for first in (0, 2):
        for name, weight in model.blocks[first].mlp.named_parameters():
            parts = [dict(other.blocks[index].mlp.named_parameters())[name].grad for index in (first, first + 1)]
            torch.testing.assert_close(weight.grad, parts[0] + parts[1], rtol=1e-10, atol=1e-12)


def test_a_shared_gradient_counts_once_in_the_norm_that_is_cut():
    model = grouped()
    cross_entropy(model(IMAGES), LABELS).backward()
    expected = sum(weight.grad.double().square().sum() for weight in unique(model).values()).sqrt()
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), expected.item() / 2)
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=0)
    dispatch_clip_grad(model.parameters(), expected.item() / 4)
    found = sum(weight.grad.double().square().sum() for weight in unique(model).values()).sqrt()
    torch.testing.assert_close(found, expected / 4, rtol=1e-5, atol=0)


GROUPS = {
    "create_optimizer_v2": lambda model: create_optimizer_v2(model, opt="adamw", weight_decay=0.1).param_groups,
    "weight decay": lambda model: param_groups_weight_decay(model, 0.1),
    "layer decay": lambda model: param_groups_layer_decay(model, 0.1, layer_decay=0.75),
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_timms_weight_decay_groups_hold_it_once(groups):
    model = grouped()
    held = [id(weight) for group in groups(model) for weight in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == set(unique(model))
    decayed = {id(weight) for group in groups(model) if group["weight_decay"] for weight in group["params"]}
    assert id(model.blocks[1].mlp.fc1.weight) in decayed
    assert id(model.blocks[1].mlp.fc1.bias) not in decayed


def test_an_optimizer_keeps_one_state_and_takes_one_step():
    """One step of plain gradient descent moves a shared weight by its whole gradient, once."""
    model = grouped()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    before = model.blocks[0].mlp.fc2.weight.detach().clone()
    cross_entropy(model(IMAGES), LABELS).backward()
    gradient = model.blocks[0].mlp.fc2.weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(model.blocks[1].mlp.fc2.weight, before - 0.5 * gradient)
    assert len(optimizer.state) == len(unique(model))


def test_a_checkpoint_holds_it_once_and_gives_it_back_shared(tmp_path):
    model = grouped()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    cross_entropy(model(IMAGES), LABELS).backward()
    optimizer.step()
    write_checkpoint(tmp_path, State({"model": model}, optimizer), Progress(step=1), identity="it")
    stored = load_file(tmp_path / "step-000000001" / "weights.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == sum(w.numel() for w in unique(model).values())
    fresh = grouped()
    state = State({"model": fresh}, torch.optim.AdamW(fresh.parameters(), lr=1e-2))
    assert read_checkpoint(tmp_path, state, identity="it").step == 1
    assert fresh.blocks[0].mlp is fresh.blocks[1].mlp
    for net, own in ((model, optimizer), (fresh, state.optimizer)):  # and both go on alike
        own.zero_grad()
        cross_entropy(net(IMAGES), LABELS).backward()
        own.step()
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_it_shared(dtype):
    whole = grouped().eval()
    half = copy.deepcopy(whole).to(dtype)
    assert half.blocks[2].mlp.fc1.weight is half.blocks[3].mlp.fc1.weight
    assert len(unique(half)) == len(unique(whole))
    error = (half(IMAGES.to(dtype)).float() - whole(IMAGES)).abs().max()
    assert 0 < error < 0.05
    with torch.autocast("cpu", dtype):
        loss = cross_entropy(whole(IMAGES), LABELS)
    loss.backward()
    reference = grouped().eval()
    cross_entropy(reference(IMAGES), LABELS).backward()
    mine, expected = whole.blocks[0].mlp.fc1.weight.grad, reference.blocks[0].mlp.fc1.weight.grad
    assert mine.dtype == torch.float32
    assert (mine - expected).norm() < 0.05 * expected.norm()
