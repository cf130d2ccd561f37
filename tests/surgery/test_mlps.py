"""group_mlps and shallow_mlps: exact counts of the paper, and laws against the untouched model."""

import copy

import pytest
import timm
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.errors import InputError, SurgeryError
from deadweight.surgery import drop_blocks, group_mlps, shallow_mlps, surgeries
from deadweight.surgery.groups import groups_of
from deadweight.surgery.narrow import units_kept

pytestmark = pytest.mark.slow


def distinct_mlps(model):
    return len({id(block.mlp) for block in anatomy(model).blocks})


@pytest.fixture
def model(family, zoo):
    return zoo.fresh(family)


# arXiv 2512.01059, table 1, checked to the unit
def test_counts_of_the_paper(zoo):
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224")
        thin = timm.create_model("vit_base_patch16_224", mlp_ratio=2.0)
    assert zoo.count(base) == 86_567_656
    grouped = group_mlps(base, scale=2**-0.5)
    assert zoo.count(grouped) == 58_233_064
    assert distinct_mlps(grouped) == 6
    assert zoo.count(shallow_mlps(base)) == zoo.count(thin) == 58_237_672


def test_grouping_equal_neighbours_changes_nothing(model, zoo):
    blocks = anatomy(model).blocks
    for first, second in ((0, 1), (2, 3)):
        blocks[second].mlp.load_state_dict(blocks[first].mlp.state_dict())
    for merge in ("first", "mean"):
        grouped = group_mlps(model, merge=merge)
        assert distinct_mlps(grouped) == 2
        torch.testing.assert_close(zoo.run(grouped), zoo.run(model), rtol=1e-5, atol=1e-6)


def test_the_copy_leaves_the_original_alone(model, zoo):
    before, size = zoo.run(model), zoo.count(model)
    group_mlps(shallow_mlps(model), scale=0.5)
    assert zoo.count(model) == size
    assert surgeries(model) == []
    assert torch.equal(zoo.run(model), before)


def test_inplace_returns_the_model_itself(model):
    assert group_mlps(model, inplace=True) is model
    assert shallow_mlps(model, inplace=True) is model
    assert [entry["name"] for entry in surgeries(model)] == ["group_mlps", "shallow_mlps"]


def masked(model, kept_of, zoo):
    """The same function computed the other way: unwanted units are silenced where they are read."""
    hooks = []
    for block in anatomy(model).blocks:
        paths = block.mlp_paths
        mask = torch.zeros(paths.hidden)
        mask[kept_of(model, paths)] = 1
        down = model.get_submodule(paths.down)
        hooks.append(down.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,)))
    try:
        return zoo.run(model)
    finally:
        for hook in hooks:
            hook.remove()


def heaviest(model, paths):
    """Oracle: plain loops over units."""
    weights = {name: value.detach().double() for name, value in model.named_parameters()}
    transposed = type(model.get_submodule(paths.down)).__name__ == "Conv1D"

    def row(name, unit):
        weight = weights[f"{name}.weight"]
        return weight[:, unit] if transposed else weight[unit]

    scores = []
    for unit in range(paths.hidden):
        down = weights[f"{paths.down}.weight"]
        score = (down[unit] if transposed else down[:, unit]).norm()
        for name in paths.up:
            for offset in (0, paths.hidden) if paths.packed else (0,):
                score = score * row(name, unit + offset).norm()
        scores.append(float(score))
    best = sorted(range(paths.hidden), key=lambda unit: -scores[unit])[: units_kept(paths.hidden, 0.5)]
    return sorted(best)


@pytest.mark.parametrize("by", ["first", "weight"])
def test_shallow_equals_the_original_with_dropped_units_silenced(model, by, zoo):
    if any(block.mlp_paths.inner for block in anatomy(model).blocks):
        return  # a norm inside the MLP sees the dropped units: the next test is for those
    choose = {"first": lambda _, paths: range(units_kept(paths.hidden, 0.5)), "weight": heaviest}[by]
    expected = masked(model, choose, zoo)
    small = shallow_mlps(model, 0.5, by=by)
    torch.testing.assert_close(zoo.run(small), expected, rtol=1e-5, atol=1e-6)
    for block in anatomy(small).blocks:
        down, up = small.get_submodule(block.mlp_paths.down), small.get_submodule(block.mlp_paths.up[0])
        assert getattr(down, "in_features", getattr(down, "nx", None)) == block.mlp_paths.hidden
        assert getattr(up, "out_features", getattr(up, "nf", None)) == block.mlp_paths.hidden * (
            1 + block.mlp_paths.packed
        )


def test_norms_inside_the_mlp_are_narrowed(zoo):
    model = zoo.fresh("timm_eva_two_gates")
    before = anatomy(model).blocks[0].mlp_paths
    small = shallow_mlps(model, 0.25)
    norm = small.get_submodule(before.inner[0])
    assert norm.normalized_shape == (units_kept(before.hidden, 0.25),)
    assert torch.equal(norm.weight, model.get_submodule(before.inner[0]).weight[: norm.normalized_shape[0]])
    assert zoo.run(small).isfinite().all()


def test_configs_tell_the_new_width(zoo):
    assert shallow_mlps(zoo.families["hf_vit"](), 0.5).config.intermediate_size == 24
    assert shallow_mlps(zoo.families["llama"](), 0.5).config.intermediate_size == 20
    assert shallow_mlps(zoo.families["hf_gpt2"](), 0.5).config.n_inner == 48
    assert shallow_mlps(zoo.families["torchvision"](), 0.5).mlp_dim == 24
    small = shallow_mlps(zoo.families["hf_dinov2"](), 0.5)
    again = transformers.Dinov2ForImageClassification(small.config)
    assert zoo.count(again) == zoo.count(small)


def test_scale_touches_weights_and_input_biases_only(model):
    paths = anatomy(model).blocks[0].mlp_paths
    scaled = group_mlps(model, scale=0.5)
    old, new = dict(model.named_parameters()), dict(scaled.named_parameters())
    touched = {
        name for name, value in new.items() if name.startswith(f"{paths.path}.") and not torch.equal(value, old[name])
    }
    expected = {f"{name}.{part}" for name in paths.up for part in ("weight", "bias")} | {f"{paths.down}.weight"}
    assert touched == expected & old.keys()
    for name in touched:
        assert torch.equal(new[name], old[name] * 0.5)


def test_a_group_of_one_is_never_scaled(zoo):
    model = drop_blocks(zoo.fresh("timm_vit"), [3])
    grouped = group_mlps(model, scale=0.5)
    assert torch.equal(grouped.blocks[2].mlp.fc1.weight, model.blocks[2].mlp.fc1.weight)
    assert not torch.equal(grouped.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)


def test_mean_is_the_average(zoo):
    model = zoo.fresh("timm_vit")
    grouped = group_mlps(model, size=3, merge="mean")
    expected = torch.stack([block.mlp.fc1.weight for block in model.blocks[:3]]).double().mean(0).float()
    assert torch.equal(grouped.blocks[2].mlp.fc1.weight, expected)
    assert torch.equal(grouped.blocks[3].mlp.fc1.weight, model.blocks[3].mlp.fc1.weight)


def test_surgeries_compose_in_either_order(model, zoo):
    one = group_mlps(shallow_mlps(model, 0.5), size=2)
    other = shallow_mlps(group_mlps(model, size=2), 0.5)
    assert zoo.count(one) == zoo.count(other)
    assert torch.equal(zoo.run(one), zoo.run(other))


@given(depth=st.integers(1, 40), size=st.integers(1, 45), pattern=st.sampled_from(["adjacent", "strided", "mirrored"]))
@settings(max_examples=60, deadline=None)
def test_every_pattern_is_a_partition(depth, size, pattern):
    if size > depth:
        with pytest.raises(InputError, match=f"group size {size} for {depth} blocks"):
            groups_of(depth, size, pattern)
        return
    groups = groups_of(depth, size, pattern)
    assert sorted(index for group in groups for index in group) == list(range(depth))
    assert len(groups) == -(-depth // size)
    assert max(map(len, groups)) <= size


@pytest.mark.parametrize(
    ("pattern", "size", "groups"),
    [
        ("adjacent", 2, [[0, 1], [2, 3], [4]]),
        ("strided", 2, [[0, 3], [1, 4], [2]]),
        ("mirrored", 2, [[0, 4], [1, 3], [2]]),
        ([[4, 0], [-2, 1]], 2, [[4, 0], [3, 1], [2]]),
    ],
)
def test_patterns(pattern, size, groups):
    assert groups_of(5, size, pattern) == groups


@given(hidden=st.integers(1, 5000), keep=st.floats(1e-6, 1))
def test_units_kept_is_rounding_half_up(hidden, keep):
    kept = units_kept(hidden, keep)
    assert 1 <= kept <= hidden
    assert abs(kept - keep * hidden) <= 0.5 + 1e-9 or kept == 1


class Odd(nn.Module):
    """An MLP with something between its layers that nobody knows how to narrow."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mix = nn.Linear(hidden, hidden)

    def forward(self, x):
        return self.fc2(self.mix(self.fc1(x).relu()))


REFUSALS = {
    "two widths": (
        lambda m: setattr(m.blocks[1], "mlp", shallow_mlps(m).blocks[1].mlp),
        group_mlps,
        {},
        "blocks 0 and 1",
    ),
    "unknown layer": (lambda m: setattr(m.blocks[1], "mlp", Odd(24, 96)), shallow_mlps, {}, "block 1 .*mix"),
    "block twice": (None, group_mlps, {"pattern": [[0, 1], [1, 2]]}, "block 1 is listed twice"),
    "no such block": (None, group_mlps, {"pattern": [[0, 9]]}, "block 9"),
    "separated": (lambda m: group_mlps(m, inplace=True), group_mlps, {"pattern": "strided"}, "blocks 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_block(case, zoo):
    prepare, surgery, options, message = REFUSALS[case]
    model = zoo.fresh("timm_vit")
    if prepare:
        prepare(model)
    size = zoo.count(model)
    with pytest.raises(SurgeryError, match=message):
        surgery(model, **options, inplace=True)
    assert zoo.count(model) == size


@pytest.mark.parametrize(
    ("surgery", "options"),
    [
        (group_mlps, {"size": 0}),
        (group_mlps, {"size": 5}),
        (group_mlps, {"pattern": "spiral"}),
        (group_mlps, {"merge": "sum"}),
        (group_mlps, {"scale": 0.0}),
        (shallow_mlps, {"keep": 0.0}),
        (shallow_mlps, {"keep": 1.5}),
        (shallow_mlps, {"by": "luck"}),
    ],
)
def test_bad_options_are_refused(surgery, options, zoo):
    with pytest.raises(InputError):
        surgery(zoo.fresh("timm_vit"), **options)


def test_shapes_are_all_that_is_needed_on_the_meta_device(family, zoo):
    whole = zoo.fresh(family)
    model = copy.deepcopy(whole).to("meta")
    for surgery, options in ((shallow_mlps, {}), (group_mlps, {}), (group_mlps, {"merge": "mean", "scale": 0.5})):
        found, wanted = surgery(model, **options), surgery(whole, **options)
        assert all(weight.is_meta for weight in found.parameters())
        shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (found, wanted)]
        assert shapes[0] == shapes[1]
        assert distinct_mlps(found) == distinct_mlps(wanted)


@pytest.mark.parametrize(
    ("surgery", "options"),
    [
        (shallow_mlps, {"by": "weight"}),
        (shallow_mlps, {"by": "activation", "batches": [torch.zeros(2, 3, 16, 16)]}),
        (shallow_mlps, {"refit": "stream", "batches": [torch.zeros(2, 3, 16, 16)]}),
        (group_mlps, {"merge": "align"}),
        (group_mlps, {"merge": "union"}),
    ],
    ids=["by weight", "by activation", "refit", "align", "union"],
)
def test_what_needs_numbers_says_so_on_the_meta_device(surgery, options, zoo):
    with pytest.raises(InputError, match="on the meta device, which holds no numbers"):
        surgery(zoo.fresh("timm_vit").to("meta"), **options)


def test_swin_shares_within_stages_and_refuses_across():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=2, embed_dim=8, num_heads=(1, 1, 1, 1)
    )
    assert distinct_mlps(group_mlps(model)) == 6
    with pytest.raises(SurgeryError, match="blocks 0 and 2"):
        group_mlps(model, size=4)
