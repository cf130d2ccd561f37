"""The closed-form refit: against numpy, and against laws that hold for every family."""

import numpy as np
import pytest
import timm
import torch
import transformers

from deadweight.anatomy import anatomy
from deadweight.anatomy.parts import is_transposed, stream
from deadweight.errors import InputError, SurgeryError
from deadweight.loading import load, save
from deadweight.surgery import drop_blocks, group_mlps, shallow_mlps
from deadweight.surgery.blockwise import BlockwiseRun
from deadweight.surgery.calibration import calibration, evaluating
from deadweight.surgery.least_squares import RIDGES, Gram, add_gram, fit, mirrored, solve
from deadweight.surgery.narrow import hidden_axes
from deadweight.surgery.refit import refit_outputs
from deadweight.surgery.residual_branch import ResidualBranch

pytestmark = pytest.mark.slow

SWIN = {"img_size": 16, "patch_size": 2, "window_size": 2, "embed_dim": 8, "num_heads": (1, 1, 1, 1), "num_classes": 5}


def swin():
    torch.manual_seed(0)
    return timm.create_model("swin_tiny_patch4_window7_224", **SWIN).eval()


def batches_for(model, batches=4, items=16):
    generator = torch.Generator().manual_seed(2)
    if anatomy(model).kind == "causal_lm":
        return [torch.randint(3, 50, (items, 9), generator=generator) for _ in range(batches)]
    return [torch.randn(items, 3, 16, 16, generator=generator) for _ in range(batches)]


def outputs(model, batch):
    with torch.no_grad():
        out = model.eval()(batch)
    return out if isinstance(out, torch.Tensor) else out.logits


def far(model, original, batch):
    """How far the outputs are from the original's, relative to their size."""
    wanted = outputs(original, batch)
    return float((outputs(model, batch) - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(400, 12, generator=generator)
    true = torch.randn(13, 5, generator=generator)
    r = h @ true[:12] + true[12] + 0.1 * torch.randn(400, 5, generator=generator)
    return h, r, torch.rand(400, generator=generator)


def summed(h, r, w, bias=True, pieces=7):
    gram = Gram(h.shape[1], r.shape[1], bias=bias, device=torch.device("cpu"))
    for part in torch.arange(len(h)).chunk(pieces):
        gram.add(h[part], r[part], w[part])
    return gram


def test_least_squares_is_numpys(rows):
    h, r, w = rows
    gram = summed(h, r, w)
    ridge = 0.37
    inputs = np.concatenate([h.numpy(), np.ones((400, 1))], axis=1).astype(np.float64)
    weights = w.numpy().astype(np.float64)[:, None]
    pull = ridge * np.mean(np.sum(weights * inputs[:, :12] ** 2, axis=0)) * np.diag([1.0] * 12 + [0.0])
    expected = np.linalg.solve(inputs.T @ (weights * inputs) + pull, inputs.T @ (weights * r.numpy()))
    found = solve(gram.inner(), gram.hr_IO, ridge, bias=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    left = r.numpy() - inputs @ found.numpy()
    assert gram.error(found) == pytest.approx(float((weights * left**2).sum()), rel=1e-4)


def test_batches_only_add_up(rows):
    one, many = summed(*rows, pieces=1), summed(*rows, pieces=13)
    torch.testing.assert_close(one.inner(), many.inner())
    torch.testing.assert_close(one.hr_IO, many.hr_IO)


@pytest.mark.parametrize("inputs", [3, 128, 129, 300, 1100])
def test_half_a_gram_matrix_tells_all_of_it(inputs):
    h = torch.randn(50, inputs, generator=torch.Generator().manual_seed(0))
    upper = torch.zeros(inputs, inputs)
    for part in h.chunk(3):
        add_gram(upper, part)
    torch.testing.assert_close(mirrored(upper), h.T @ h, rtol=1e-5, atol=1e-4)


def test_a_ridge_chosen_on_combinations_of_outputs_is_that_of_all():
    """Many outputs: few inputs carry signal, so that a middling ridge is best."""
    generator = torch.Generator().manual_seed(3)
    h, true = torch.randn(2, 60, 40, generator=generator), 0.3 * torch.randn(40, 600, generator=generator)
    train, held = (
        summed(part, part @ true + torch.randn(60, 600, generator=generator), torch.ones(60), bias=False) for part in h
    )
    errors = [held.error(solve(train.inner(), train.hr_IO, ridge, False)) for ridge in RIDGES]
    best = min(range(len(RIDGES)), key=errors.__getitem__)
    assert 0 < best < len(RIDGES) - 1
    for start in (0, 4, len(RIDGES) - 1):
        found = fit(train, held, start=start)
        assert found.ridge == RIDGES[best]
        assert found.after == pytest.approx(errors[best], rel=1e-9)


def test_what_does_not_carry_over_is_not_kept(rows):
    h, r, w = rows
    assert fit(summed(h, r, w), summed(h, r, w)).change is not None
    found = fit(summed(h, r, w), summed(h, -r, w))
    assert found.change is None
    assert found.after == found.before


def test_a_walk_is_the_models_own_way(family, zoo):
    compare_walk(zoo.fresh(family), zoo)


def test_a_walk_crosses_swins_stages(zoo):
    compare_walk(swin(), zoo)


def compare_walk(model, zoo):
    (inputs,) = calibration(model, [zoo.inputs(model)], "a test")
    expected = {}
    blocks = anatomy(model).blocks
    handles = [
        block.module.register_forward_hook(lambda _, __, output, index=block.index: expected.update({index: output}))
        for block in blocks
    ]
    with evaluating(model):
        inputs.call(model)
        for handle in handles:
            handle.remove()
        walk = BlockwiseRun(model, blocks, inputs.first())
        after = None
        for block in blocks:
            after = walk.run(block.index, walk.enter(inputs, block.index, after))
            torch.testing.assert_close(after, stream(expected[block.index]))
    assert all("forward" not in block.module.__dict__ for block in blocks)


def test_an_embedding_that_a_later_block_reads_is_not_stood_in_for(zoo):
    """The last block reads the embedded picture beside the stream, as models with a long skip do."""
    model = zoo.fresh("timm_vit").eval()
    seen = {}
    model.patch_embed.register_forward_hook(lambda module, args, output: seen.update(embedded=output))
    model.blocks[-1].register_forward_pre_hook(lambda module, args: (args[0] + seen["embedded"].mean(),))
    entered = {}
    last = len(model.blocks) - 1
    model.blocks[last - 1].register_forward_hook(lambda module, args, output: entered.update(before=output))
    model.blocks[last].norm1.register_forward_pre_hook(lambda module, args: entered.update(read=args[0]))
    (inputs,) = calibration(model, [torch.randn(2, 3, 16, 16)], "a test")
    with torch.inference_mode():
        inputs.call(model)
        before, wanted = entered["before"], entered["read"]
        walk = BlockwiseRun(model, anatomy(model).blocks, inputs.first())
        assert torch.equal(walk.enter(inputs, last, before).stream, wanted)


def double(model):
    """Make the second half of every MLP's hidden units a copy of the first: half of them are then superfluous."""
    with torch.no_grad():
        for block in anatomy(model).blocks:
            half = block.mlp_paths.hidden // 2
            units = torch.cat([torch.arange(half), torch.arange(half), torch.arange(2 * half, block.mlp_paths.hidden)])
            down = model.get_submodule(block.mlp_paths.down)
            for axis in hidden_axes(model, block.mlp_paths):
                if axis.owner is not down:
                    axis.tensor.copy_(axis.joined([axis.taken(units)]))
    return model


@pytest.mark.parametrize("refit", ["layer", "stream"])
def test_superfluous_units_cost_nothing_after_a_refit(family, refit, zoo):
    model = double(zoo.fresh(family))
    if any(block.mlp_paths.inner for block in anatomy(model).blocks):
        return  # the norm inside sees the same mean and variance, but nothing else is the same to the unit
    batches = batches_for(model)
    other = batches_for(model, 5)[-1]
    cut = shallow_mlps(model, 0.5)
    before = far(cut, model, other)
    mended = far(shallow_mlps(model, 0.5, refit=refit, batches=batches), model, other)
    assert before > 1e-3
    assert mended < 0.05 * before


def test_swin_is_refitted_across_its_stages():
    model = double(swin())
    batches = batches_for(model)
    other = batches_for(model, 5)[-1]
    before = far(shallow_mlps(model, 0.5), model, other)
    mended = far(shallow_mlps(model, 0.5, refit="stream", batches=batches), model, other)
    assert mended < 0.2 * before  # the last stages show few tokens


CUTS = {
    "half": lambda model, **options: shallow_mlps(model, 0.5, by="activation", **options),
    "union": lambda model, **options: group_mlps(model, merge="union", **options),
    "strided": lambda model, **options: group_mlps(model, pattern="strided", **options),
    "a block dropped": lambda model, **options: drop_blocks(model, [2], **options),
    "the first dropped, and one more": lambda model, **options: drop_blocks(model, [0, 2], **options),
}


@pytest.fixture(scope="module")
def trained():
    """A small ViT with structure in its activations: it was trained on patterns under noise."""
    torch.manual_seed(0)
    model = load("embedded:digits-vit", patch_size=2, embed_dim=24, depth=4, num_heads=2, num_classes=4)
    patterns = torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(60):
        labels = torch.randint(4, (32,))
        loss = torch.nn.functional.cross_entropy(model(patterns[labels] + 0.5 * torch.randn(32, 1, 8, 8)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    draws = [patterns[torch.randint(4, (32,))] + 0.5 * torch.randn(32, 1, 8, 8) for _ in range(6)]
    return model.eval(), draws[:5], draws[5]


@pytest.mark.parametrize("refit", ["layer", "stream"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_refit_brings_the_outputs_back(cut, refit, trained):
    model, batches, other = trained
    options = {"batches": batches} if cut in ("half", "union") else {}
    before = far(CUTS[cut](model, **options), model, other)
    mended = CUTS[cut](model, refit=refit, batches=batches)
    assert far(mended, model, other) < (0.8 if cut != "strided" else 1.0) * before
    again = CUTS[cut](model, refit=refit, batches=batches)
    assert all(torch.equal(one, two) for one, two in zip(mended.parameters(), again.parameters(), strict=True))


def test_only_output_layers_change_and_only_where_asked(trained):
    model, batches, _ = trained
    cut, mended = drop_blocks(model, [2]), drop_blocks(model, [2], refit="stream", batches=batches)
    own = dict(mended.named_parameters())
    touched = {name for name, value in cut.named_parameters() if not torch.equal(value, own[name])}
    assert touched == {"blocks.1.mlp.fc2.weight", "blocks.1.mlp.fc2.bias"}


def test_inplace_is_the_same(trained):
    import copy

    model, batches, _ = trained
    mine = copy.deepcopy(model)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    expected = shallow_mlps(model, 0.5, by="weight", refit="stream", batches=batches)
    assert shallow_mlps(mine, 0.5, by="weight", refit="stream", batches=batches, inplace=True) is mine
    assert all(torch.equal(value, mine.state_dict()[name]) for name, value in expected.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert not mine.training


def test_a_refitted_model_comes_back_from_disk_without_its_batches(trained, tmp_path):
    model, batches, other = trained
    small = shallow_mlps(group_mlps(model, merge="union", refit="stream", batches=batches), by="activation",
                         refit="layer", batches=batches)  # fmt: skip
    save(small, tmp_path / "saved")
    again = load(f"file:{tmp_path / 'saved'}")
    assert torch.equal(outputs(again, other), outputs(small, other))
    assert again.blocks[0].mlp is again.blocks[1].mlp


def test_reports_tell_errors_as_shares_of_the_stream(trained):
    model, batches, _ = trained
    cut = shallow_mlps(model, 0.5)
    inputs = calibration(model, batches, "a test")
    found = refit_outputs(cut, model, inputs, target="stream", blocks=[0, 1, 2, 3])
    assert [one.blocks for one in found] == [(0,), (1,), (2,), (3,)]
    assert all(0 < one.after < one.before < 1 for one in found if one.kept)


def test_labels_and_padding_do_not_count(zoo):
    model = zoo.fresh("llama")
    tokens = torch.randint(3, 50, (16, 8), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(tokens)
    mask[:, 6:] = 0
    noisy = tokens.clone()
    noisy[:, 6:] = 7
    results = [
        shallow_mlps(model, 0.5, refit="stream", batches=[{"input_ids": ids, "attention_mask": mask, "labels": ids}])
        for ids in (tokens, noisy)
    ]
    for one, other in zip(*(result.parameters() for result in results), strict=True):
        torch.testing.assert_close(one, other)


def gemma():
    torch.manual_seed(0)
    return transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2, head_dim=12,
            intermediate_size=40, vocab_size=50, sliding_window=4,
        )
    ).eval()  # fmt: skip


def test_a_norm_after_the_mlp_leaves_the_layer_target():
    model = gemma()
    batches = batches_for(model)
    with pytest.raises(SurgeryError, match="block 0 "):
        shallow_mlps(model, 0.5, refit="stream", batches=batches)
    before = far(shallow_mlps(model, 0.5), model, batches[0])
    assert far(shallow_mlps(model, 0.5, refit="layer", batches=batches), model, batches[0]) < before


def test_the_junction_finds_a_layerscale(zoo):
    model = zoo.fresh("timm_deit3")
    with torch.no_grad():
        model.blocks[1].ls2.gamma.copy_(torch.linspace(1e-5, 2e-5, 24))
    (inputs,) = calibration(model, [zoo.inputs(model)], "a test")
    with evaluating(model):
        walk = BlockwiseRun(model, anatomy(model).blocks, inputs.first())
        before = walk.run(0, walk.enter(inputs, 0))
        found = ResidualBranch.of(walk, 1, model.blocks[1].mlp.fc2, inputs.first(), before[:1], required=True)
    torch.testing.assert_close(found.scale, model.blocks[1].ls2.gamma.detach(), rtol=1e-3, atol=0)


def test_merges_that_match_units_undo_a_shuffle(family, zoo):
    model = zoo.fresh(family)
    blocks = anatomy(model).blocks
    with torch.no_grad():
        blocks[1].mlp.load_state_dict(blocks[0].mlp.state_dict())
        order = torch.randperm(blocks[1].mlp_paths.hidden, generator=torch.Generator().manual_seed(1))
        for axis in hidden_axes(model, blocks[1].mlp_paths):
            axis.tensor.copy_(axis.joined([axis.taken(order)]))
    pair = [[0, 1]]
    torch.testing.assert_close(
        outputs(group_mlps(model, pattern=pair, merge="align"), zoo.inputs(model)),
        outputs(model, zoo.inputs(model)), rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    with torch.no_grad():
        down = group_mlps(model, pattern=pair, merge="mean").get_submodule(blocks[0].mlp_paths.down)
    assert not torch.allclose(down.weight, model.get_submodule(blocks[0].mlp_paths.down).weight, atol=1e-3)


def test_union_takes_the_best_of_each(zoo):
    model = zoo.fresh("hf_gpt2")
    blocks = anatomy(model).blocks
    assert is_transposed(blocks[0].mlp.c_fc)
    with torch.no_grad():
        blocks[0].mlp.c_proj.weight[1::2] *= 1e-4  # the even units matter
        blocks[1].mlp.c_proj.weight[0::2] *= 1e-4  # the odd ones
    merged = group_mlps(model, pattern=[[0, 1]], merge="union")
    expected = torch.cat([blocks[0].mlp.c_fc.weight[:, 0::2], blocks[1].mlp.c_fc.weight[:, 1::2]], dim=1)
    assert torch.equal(anatomy(merged).blocks[0].mlp.c_fc.weight, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"refit": "stream"},
        {"by": "activation"},
        {"refit": "stream", "batches": []},
        {"refit": "stream", "batches": [["no tensor"]]},
        {"refit": "steam", "batches": [torch.zeros(1, 3, 16, 16)]},
        {"keep": [0.5, 0.5]},
    ],
    ids=str,
)
def test_bad_calibration_is_refused(options, zoo):
    with pytest.raises(InputError):
        shallow_mlps(zoo.fresh("timm_vit"), **options)


def test_shares_block_by_block(zoo):
    model = zoo.fresh("llama")
    small = shallow_mlps(model, [1.0, 0.5, 0.25, 1.0])
    assert [block.mlp_paths.hidden for block in anatomy(small).blocks] == [40, 20, 10, 40]
    with pytest.raises(SurgeryError, match="blocks 0 and 1 share"):
        shallow_mlps(group_mlps(model), [0.5, 0.25, 0.5, 0.5])
