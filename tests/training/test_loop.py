"""The training loop: determinism, exact resume, shared tensors, refusals."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from deadweight.data import ImageData
from deadweight.errors import InputError
from deadweight.models import load
from deadweight.surgery import group_mlps
from deadweight.training import Diverged, Feed, Recipe, evaluate, train
from deadweight.training import feed as feeding
from deadweight.training.loop import _Parts, _seeded

FULL = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25, "drop_path": 0.2, "ema_decay": 0.9, "label_smoothing": 0.1}
RECIPE = Recipe(epochs=4, batch_size=8, lr=2e-3, warmup_epochs=1, seed=5, **FULL)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Steps this small only wait for a second thread."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


class Labelled(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, int(label)


def pictures(count, seed):
    """One pattern a class under noise: easy to learn."""
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % 4
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Labelled(patterns[labels] + 0.3 * noise, labels)


DATA = ImageData("bars", pictures(44, 0), pictures(24, 1), ("a", "b", "c", "d"), 1, (8, 8), "bars-1")


def model(seed=0):
    torch.manual_seed(seed)
    return load(
        "embedded:digits-vit", patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=4, weight_init="jax"
    )


def equal(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_it_learns_and_tells_curves():
    net = model()
    recipe = Recipe(epochs=5, batch_size=8, lr=3e-3, warmup_epochs=1)
    curves = train(net, DATA, recipe)
    assert curves.top1[-1] >= 0.9
    assert curves.train_loss[-1] < curves.train_loss[0]
    assert evaluate(net, Feed(DATA.validation, torch.device("cpu"))).top1 == curves.top1[-1]
    assert curves.peak_epoch == 1 + int(np.argmax(curves.top1))
    assert curves.degradation == max(curves.top1) - curves.top1[-1]
    assert list(curves.table().columns) == ["epoch", "train_loss", "top1", "top5"]
    assert set(curves.top5) == {1.0}
    assert not net.training


def test_the_seed_decides_everything_and_global_streams_are_left_alone():
    one, other = model(), model()
    torch.manual_seed(123)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(123)
    np.random.seed(7)
    curves = train(one, DATA, RECIPE)
    assert (torch.rand(1), np.random.rand()) == expected
    again = train(other, DATA, RECIPE)
    assert curves == again
    assert equal(one, other)
    third = model()
    train(third, DATA, Recipe(epochs=4, batch_size=8, lr=2e-3, warmup_epochs=1, seed=6, **FULL))
    assert not equal(one, third)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("shared", [False, True], ids=["plain", "grouped"])
@pytest.mark.parametrize("moment", ["at an epoch's end", "in the middle of an epoch"])
def test_a_killed_run_resumes_to_the_same_weights(moment, shared, tmp_path):
    first = group_mlps(model(), scale=2**-0.5) if shared else model()
    whole, broken = copy.deepcopy(first), copy.deepcopy(first)
    expected = train(whole, DATA, RECIPE)

    def stop(text, done):
        if moment == "at an epoch's end" and done == 0.5:
            raise Killed

    calls = []

    def count(module, args):
        calls.append(1)
        if moment == "in the middle of an epoch" and module.training and len(calls) == 17:
            raise Killed

    hook = broken.register_forward_pre_hook(count)
    with pytest.raises(Killed):
        train(broken, DATA, RECIPE, folder=tmp_path, note=stop, checkpoint_seconds=0)
    hook.remove()
    assert len(list(tmp_path.iterdir())) == 1
    seen = []
    resumed = copy.deepcopy(first)
    curves = train(resumed, DATA, RECIPE, folder=tmp_path, note=lambda text, done: seen.append(done))
    assert seen == [0.75, 1.0]
    assert curves == expected
    assert equal(resumed, whole)
    if shared:
        assert resumed.blocks[0].mlp is resumed.blocks[1].mlp


def test_another_recipe_does_not_resume(tmp_path):
    train(model(), DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8), folder=tmp_path, checkpoint_seconds=0)
    seen = []
    train(
        model(), DATA, Recipe(epochs=3, warmup_epochs=0, batch_size=8), folder=tmp_path, note=lambda *a: seen.append(a)
    )
    assert len(seen) == 3


def test_shared_weights_are_one_tensor_to_the_optimizer_and_to_the_average():
    from accelerate import Accelerator

    net = group_mlps(model())
    unique = sum(weight.numel() for weight in net.parameters())
    parts = _Parts(net, DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8, ema_decay=0.5), Accelerator(cpu=True))
    assert sum(weight.numel() for group in parts.optimizer.param_groups for weight in group["params"]) == unique
    average = parts.ema.module
    assert average.blocks[0].mlp is average.blocks[1].mlp
    weight = net.blocks[0].mlp.fc1.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
    parts.ema.update(net)
    torch.testing.assert_close(average.blocks[1].mlp.fc1.weight, before + 0.5)


def test_weight_decay_spares_biases_and_norms():
    from accelerate import Accelerator

    net = model()
    parts = _Parts(net, DATA, Recipe(epochs=2, warmup_epochs=0, weight_decay=0.3), Accelerator(cpu=True))
    decayed = {id(w) for group in parts.optimizer.param_groups if group["weight_decay"] for w in group["params"]}
    assert id(net.blocks[0].mlp.fc1.weight) in decayed
    assert not decayed & {id(net.blocks[0].mlp.fc1.bias), id(net.norm.weight)}


def test_the_rate_warms_up_and_falls_to_zero_as_a_cosine():
    from accelerate import Accelerator

    recipe = Recipe(epochs=5, batch_size=8, lr=1.0, warmup_epochs=1)
    parts = _Parts(model(), DATA, recipe, Accelerator(cpu=True))
    total, warm = 5 * parts.steps, parts.steps
    rates = []
    for step in range(total):
        parts.scheduler.step_update(step)
        rates.append(parts.optimizer.param_groups[0]["lr"])
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(total) / total))
    np.testing.assert_allclose(rates[warm:], expected[warm:], atol=1e-12)
    assert np.all(np.diff(rates[:warm]) > 0)


def test_a_loss_that_is_no_number_names_the_step():
    net = model()
    calls = []

    def spoil(module, args, output):
        calls.append(1)
        return output * float("nan") if len(calls) == 3 else output

    net.register_forward_hook(spoil)
    with pytest.raises(Diverged, match="step 3 "):
        train(net, DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8))


def test_drop_path_rises_with_depth():
    net = model()
    train(net, DATA, Recipe(epochs=1, warmup_epochs=0, batch_size=8, drop_path=0.3))
    assert [block.drop_path1.drop_prob for block in net.blocks] == [0, 0.3]


def test_a_set_too_large_to_hold_gives_the_same_batches(monkeypatch):
    chunks = list(torch.randperm(44).split(10))
    held = Feed(DATA.train, torch.device("cpu"))
    monkeypatch.setattr(feeding, "HELD_BYTES", 0)
    read = Feed(DATA.train, torch.device("cpu"))
    for one, other in zip(held.batches(chunks), read.batches(chunks), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_epochs_have_streams_of_their_own():
    draws = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        with _seeded(seed, epoch):
            draws.append((float(torch.rand(1)), np.random.rand()))
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": -1.0},
        {"warmup_epochs": 300},
        {"drop_path": 1.0},
        {"mixup": -0.1},
        {"ema_decay": 1.0},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_recipes_that_make_no_sense(wrong):
    with pytest.raises(InputError):
        Recipe(**wrong)


def test_the_papers_recipe():
    recipe = Recipe.paper()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (300, 1024, 1e-3, 0.05)
    assert (recipe.warmup_epochs, recipe.drop_path, recipe.mixup, recipe.cutmix) == (5, 0.1, 0.8, 1.0)
    assert (recipe.random_erasing, recipe.label_smoothing, recipe.ema_decay, recipe.seed) == (0.25, 0.1, 0.9998, 42)
