"""The training loop: determinism, exact resume, shared tensors, refusals."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

from deadweight.data import ImageData, load_images
from deadweight.errors import InputError
from deadweight.loading import load
from deadweight.surgery import group_mlps
from deadweight.training import Diverged, Feed, Recipe, evaluate, loop, train
from deadweight.training import feed as feeding
from deadweight.training.parts import Parts

pytestmark = pytest.mark.slow

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
    assert list(curves.table().columns) == ["epoch", "train_loss", "loss", "top1", "top5", "lr"]
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
def test_a_killed_run_resumes_to_the_same_weights(moment, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOOK_STEPS", 1)
    first = group_mlps(model(), scale=2**-0.5) if shared else model()
    whole, broken = copy.deepcopy(first), copy.deepcopy(first)
    expected = train(whole, DATA, RECIPE)

    def stop(text, done):
        if moment == "at an epoch's end" and done == 0.5:
            raise Killed

    calls = []

    def count(module, args):
        calls.append(module.training)
        if moment == "in the middle of an epoch" and module.training and sum(calls) == 14:
            raise Killed

    hook = broken.register_forward_pre_hook(count)
    with pytest.raises(Killed):
        train(broken, DATA, RECIPE, folder=tmp_path, note=stop, checkpoint_seconds=0)
    hook.remove()
    # five updates an epoch: the one under way when it stopped is lost, no other
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010" if "end" in moment else "step-000000013"]
    resumed, updates = copy.deepcopy(first), []
    resumed.register_forward_pre_hook(lambda module, args: updates.append(1) if module.training else None)
    curves = train(resumed, DATA, RECIPE, folder=tmp_path)
    assert len(updates) == (10 if "end" in moment else 7)
    assert curves == expected
    assert equal(resumed, whole)
    if shared:
        assert resumed.blocks[0].mlp is resumed.blocks[1].mlp


def test_another_recipe_does_not_resume(tmp_path):
    train(model(), DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8), folder=tmp_path, checkpoint_seconds=0)
    seen = []
    recipe = Recipe(epochs=3, warmup_epochs=0, batch_size=8)
    train(model(), DATA, recipe, folder=tmp_path, note=lambda text, done: seen.append(text))
    assert sum("top-1" in text for text in seen) == 3


def test_shared_weights_are_one_tensor_to_the_optimizer_and_to_the_average():
    net = group_mlps(model())
    unique = sum(weight.numel() for weight in net.parameters())
    parts = Parts(net, DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8, ema_decay=0.5), Accelerator(cpu=True))
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
    net = model()
    parts = Parts(net, DATA, Recipe(epochs=2, warmup_epochs=0, weight_decay=0.3), Accelerator(cpu=True))
    decayed = {id(w) for group in parts.optimizer.param_groups if group["weight_decay"] for w in group["params"]}
    assert id(net.blocks[0].mlp.fc1.weight) in decayed
    assert not decayed & {id(net.blocks[0].mlp.fc1.bias), id(net.norm.weight)}


def test_the_rate_warms_up_and_falls_to_zero_as_a_cosine():
    recipe = Recipe(epochs=5, batch_size=8, lr=1.0, warmup_epochs=1)
    parts = Parts(model(), DATA, recipe, Accelerator(cpu=True))
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
        calls.append(module.training)
        return output * float("nan") if module.training and sum(calls) == 3 else output

    net.register_forward_hook(spoil)
    with pytest.raises(Diverged, match="step 3 "):
        train(net, DATA, Recipe(epochs=2, warmup_epochs=0, batch_size=8))


@pytest.mark.parametrize("spoilt", ["loss", "update"])
def test_the_last_good_checkpoint_survives_what_is_no_number(spoilt, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOOK_STEPS", 1)
    recipe = Recipe(epochs=2, warmup_epochs=0, batch_size=8)
    net, calls, kept = model(), [], {}

    def before(module, args):
        calls.append(module.training)
        if module.training and sum(calls) == 7:
            kept.update({name: value.clone() for name, value in module.state_dict().items()})
            if spoilt == "update":  # the loss of this step is still a number
                module.head.bias.register_hook(lambda gradient: gradient * float("inf"))
            else:
                return (args[0] * float("nan"),)
        return None

    net.register_forward_pre_hook(before)
    with pytest.raises(Diverged, match=r"step 7 .*epoch 2(.|\n)*holds the last good"):
        train(net, DATA, recipe, folder=tmp_path, checkpoint_seconds=0)
    (path,) = tmp_path.iterdir()
    assert path.name == "step-000000006"
    saved = load_file(path / "weights.safetensors")
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in kept.items())


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


@pytest.mark.parametrize("held", [True, False], ids=["held", "read"])
def test_a_label_beyond_the_models_outputs_is_refused(held, monkeypatch):
    monkeypatch.setattr(feeding, "HELD_BYTES", 1 << 30 if held else 0)
    wrong = pictures(44, 0)
    wrong.tensors[1][40] = 4
    data = dataclasses.replace(DATA, train=wrong)
    with pytest.raises(InputError, match="label 4 for a model of 4 classes"):
        train(model(), data, Recipe(epochs=1, warmup_epochs=0, batch_size=44))


def test_labels_of_pictures_are_looked_at_before_anything_is_computed():
    data = load_images("embedded:digits", limit=40)
    with pytest.raises(InputError, match="label 9 for a model of 4 classes"):
        train(model(), data, Recipe(epochs=1, warmup_epochs=0, batch_size=8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 9, "accumulation": 2}, "9 images for 1 processes × 2"),
        ({"batch_size": 6, "accumulation": 2, "mixup": 0.8}, "3 images at a time with mixup"),
        ({"augment": "rand-m9"}, "gives tensors"),
        ({"mixed_precision": "fp16"}, "mixed_precision 'fp16'"),  # accelerate knows none on a CPU, and says nothing
    ],
    ids=str,
)
def test_recipes_that_do_not_fit_the_data_or_the_machine(changes, message):
    with pytest.raises(InputError, match=message):
        train(model(), DATA, Recipe(epochs=1, warmup_epochs=0, **{"batch_size": 8, **changes}), device="cpu")


def test_an_unknown_tracker():
    with pytest.raises(InputError, match="tracker 'tensorbored'"):
        train(model(), DATA, RECIPE, trackers=("tensorbored",))


def test_accumulated_parts_are_the_whole_batch():
    one, two = model(), model()
    recipe = {"epochs": 3, "warmup_epochs": 1, "batch_size": 8, "lr": 2e-3, "clip_grad": 0.5, "ema_decay": 0.9}
    expected = train(one, DATA, Recipe(**recipe))
    found = train(two, DATA, Recipe(**recipe, accumulation=4))
    np.testing.assert_allclose(found.train_loss, expected.train_loss, atol=1e-5)
    for name, value in two.state_dict().items():
        torch.testing.assert_close(value, one.state_dict()[name], rtol=1e-3, atol=2e-5, msg=name)


def test_the_gradient_is_cut():
    norms = []
    for clip in (None, 0.01):
        recipe = Recipe(epochs=1, warmup_epochs=0, batch_size=44, clip_grad=clip)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: norms.append(
                nn.utils.get_total_norm([w.grad for g in self.param_groups for w in g["params"]])))  # fmt: skip
            train(model(), DATA, recipe)
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("changes", [{"mixed_precision": "bf16"}, {"channels_last": True}], ids=str)
def test_precision_and_memory_format_change_little_and_are_undone(changes):
    plain, other = model(), model()
    recipe = Recipe(epochs=2, warmup_epochs=0, batch_size=8, **changes)
    expected = train(plain, DATA, dataclasses.replace(recipe, mixed_precision="no", channels_last=False))
    found = train(other, DATA, recipe)
    np.testing.assert_allclose(found.train_loss, expected.train_loss, rtol=0.02)
    assert found.train_loss != expected.train_loss or "channels_last" in changes
    assert {weight.dtype for weight in other.parameters()} == {torch.float32}
    assert "forward" not in vars(other)
    assert train(model(), DATA, dataclasses.replace(recipe, mixed_precision="no", channels_last=False)) == expected


def test_the_average_is_scored_beside_the_weights():
    net = model()
    curves = train(net, DATA, Recipe(epochs=3, warmup_epochs=0, batch_size=8, ema_decay=0.99))
    assert [len(values) for values in curves.as_json().values()] == [3] * 8
    assert curves.ema_loss != curves.loss


def test_curves_lie_in_a_table(tmp_path):
    curves = train(model(), DATA, RECIPE)
    curves.write(tmp_path / "curves.parquet")
    table = pd.read_parquet(tmp_path / "curves.parquet")
    assert list(table["epoch"]) == [1, 2, 3, 4]
    assert list(table["ema_top1"]) == curves.ema_top1
    assert [path.name for path in tmp_path.iterdir()] == ["curves.parquet"]


def test_the_curves_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = train(model(), DATA, RECIPE, trackers=("tensorboard",), tracker_folder=tmp_path)
    events = EventAccumulator(str(tmp_path / "deadweight")).Reload()
    for name in ("train_loss", "top1", "ema_top1"):
        told = events.Scalars(name)
        assert [event.step for event in told] == [1, 2, 3, 4]
        np.testing.assert_allclose([event.value for event in told], getattr(curves, name), rtol=1e-6)


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
        {"accumulation": 0},
        {"repeats": 0},
        {"augment": "augmix-m3"},
        {"crop": (0.5, 0.2)},
        {"crop": (0.0, 1.0)},
        {"flip": 1.5},
        {"clip_grad": 0.0},
        {"mixed_precision": "int8"},
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
    assert (recipe.augment, recipe.repeats, recipe.accumulation) == ("rand-m9-mstd0.5-inc1", 3, 2)
    assert (recipe.mixed_precision, recipe.channels_last) == ("bf16", True)
