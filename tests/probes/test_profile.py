"""One pass over a model: what it leaves behind, what it refuses, what merges."""

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint

from deadweight.anatomy import anatomy
from deadweight.errors import InputError
from deadweight.probes import PROBES, DepthProfile, profile
from deadweight.probes.attention_maps import AttentionWatch
from deadweight.probes.profile import _States


def same(one, two, rtol=1e-6):
    assert list(one.columns) == list(two.columns)
    np.testing.assert_allclose(one.to_numpy(dtype=float), two.to_numpy(dtype=float), rtol=rtol, atol=1e-7)


def hooks_of(model):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.fixture(scope="module")
def vit(zoo):
    return zoo.build("timm_cls")


@pytest.fixture(scope="module")
def labelled(zoo):
    return zoo.images()


def test_merged_shards_are_the_whole(vit, labelled):
    x, y = labelled
    whole = profile(vit, [(x[:20], y[:20]), (x[20:], y[20:])])
    shards = [profile(vit, [(x[20:], y[20:])]), profile(vit, [(x[:20], y[:20])])]
    merged = shards[0].merge(shards[1])
    same(merged.table(), whole.table(), rtol=1e-9)
    numbers = ["value", "low", "high", "n"]
    same(merged.intervals()[numbers], whole.intervals()[numbers], rtol=1e-9)
    assert merged.notes == whole.notes


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batch_size_does_not_show(vit, labelled, size):
    x, y = labelled
    whole = profile(vit, [(x, y)])
    found = profile(vit, [(x[i : i + size], y[i : i + size]) for i in range(0, 40, size)])
    same(found.table(), whole.table(), rtol=1e-4)


def test_no_batches_are_the_identity(vit, labelled):
    x, y = labelled
    empty, found = profile(vit, []), profile(vit, [(x, y)])
    assert empty.table().drop(columns="layer").isna().all(axis=None)
    assert any("no images" in note for note in empty.notes)
    assert empty.merge(found).table().equals(found.table())
    assert found.merge(empty).table().equals(found.table())


def test_ids_decide_the_folds(vit, labelled):
    x, y = labelled
    ids = [f"image {i}" for i in range(40)]
    found = profile(vit, [(x, y, ids)])
    assert profile(vit, [(x, y, ids)]).table().equals(found.table())
    assert not np.array_equal(found.sample.hashes, profile(vit, [(x, y)]).sample.hashes)
    with pytest.raises(InputError, match="39 ids for 40 inputs"):
        profile(vit, [(x, y, ids[1:])])


def test_save_and_load(vit, labelled, tmp_path):
    x, y = labelled
    found = profile(vit, [(x, y)])
    found.save(tmp_path / "vit.profile")
    back = DepthProfile.load(tmp_path / "vit.profile")
    assert back.table().equals(found.table())
    assert back.intervals().equals(found.intervals())
    assert back.notes == found.notes
    assert back.useful_depth() == found.useful_depth()
    assert [path.name for path in tmp_path.iterdir()] == ["vit.profile"]
    (tmp_path / "text").write_text("not a profile")
    with pytest.raises(InputError, match="cannot be read as a depth profile"):
        DepthProfile.load(tmp_path / "text")
    with pytest.raises(InputError):
        DepthProfile.load(tmp_path / "nothing")


def test_profiles_of_different_models_do_not_merge(zoo, vit, labelled):
    x, _ = labelled
    other = zoo.build("timm_cls")
    with torch.no_grad():
        other.blocks[1].mlp.fc1.weight[0, 0] += 1e-3
    with pytest.raises(InputError, match="different models"):
        profile(vit, [x]).merge(profile(other, [x]))
    with pytest.raises(InputError, match="different probes"):
        profile(vit, [x]).merge(profile(vit, [x], probes=["influence"]))


def test_the_model_is_left_as_it_was(zoo, labelled):
    model = zoo.build("timm_cls").train()
    model.blocks[0].eval()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    profile(model, [labelled])
    assert [part.training for part in model.modules()] == modes
    assert hooks_of(model) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("block", [0, 2])
def test_nan_activations_name_layer_and_batch(zoo, labelled, block):
    model = zoo.build("timm_cls")
    x, y = labelled
    calls = []

    def spoil(module, args, output):
        calls.append(1)
        if len(calls) == 2:
            output = output.clone()
            output[3, 5, 0] = float("nan")
        return output

    handle = model.blocks[block].register_forward_hook(spoil)
    with pytest.raises(InputError, match=rf"block {block + 1} of 3 \(blocks.{block}\).*batch 1 \(its item 3"):
        profile(model, [(x[:20], y[:20]), (x[20:], y[20:])])
    handle.remove()
    assert hooks_of(model) == 0


def test_hooks_go_when_a_batch_fails(vit, labelled):
    with pytest.raises(Exception, match=r"channel|size|height"):
        profile(vit, [torch.zeros(2, 7, 5, 5)])
    assert hooks_of(vit) == 0


def test_nothing_watches_any_more_when_a_block_fails(zoo, labelled):
    model, seen = zoo.build("timm_cls"), []

    def fail(module, args):
        seen.append(torch.overrides._get_current_function_mode())
        raise RuntimeError("in the middle of a block")

    model.blocks[1].attn.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="middle"):
        profile(model, [labelled])
    assert isinstance(seen[0], AttentionWatch)
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [(torch.rand(40), "float"), (torch.zeros(40, 5).long(), r"\(40, 5\)"), ([1, 2, 3], r"\(3,\)")],
    ids=["floats", "one-hot", "too few"],
)
def test_bad_labels(vit, labelled, labels, said):
    with pytest.raises(InputError, match=said):
        profile(vit, [(labelled[0], labels)])


def test_without_labels(vit, labelled):
    x, y = labelled
    bare = profile(vit, [(x,)])
    assert bare.table()[["nc1", "nc2", "margin", "ncm_accuracy"]].isna().all(axis=None)
    assert any("no labels" in note for note in bare.notes)
    with pytest.raises(InputError, match="no labelled items"):
        bare.useful_depth()
    full = profile(vit, [(x, y)]).table()
    kept = ["raw_similarity", "centered_similarity", "cls_similarity", "influence"]
    same(bare.table()[kept], full[kept])
    assert profile(vit, [(x, None)]).table().equals(bare.table())


def test_one_class(vit, labelled):
    found = profile(vit, [(labelled[0], torch.ones(40).long())])
    assert found.table()[["nc1", "nc2", "margin"]].isna().all(axis=None)
    assert any("one class" in note for note in found.notes)


def test_fewer_images_than_dimensions(vit, labelled):
    x, y = labelled
    assert any("full rank" in note for note in profile(vit, [(x[:12], y[:12])]).notes)
    assert not any("full rank" in note for note in profile(vit, [(x, y)]).notes)


def test_chosen_probes_alone(vit, labelled):
    table = profile(vit, [labelled], probes=["nc1", "raw_similarity"]).table()
    assert list(table.columns) == ["layer", "raw_similarity", "nc1"]
    with pytest.raises(InputError, match="raw_similarity"):
        profile(vit, [labelled], probes=["raw_similarty"])
    assert set(PROBES.names()) >= {"influence", "ncm_accuracy"}


def test_a_model_by_module_paths(zoo, labelled):
    class Own(torch.nn.Module):
        def __init__(self, vit):
            super().__init__()
            self.patchify, self.stack, self.last, self.out = vit.patch_embed, vit.blocks, vit.norm, vit.head
            self.cls, self.pos = vit.cls_token, vit.pos_embed

        def forward(self, x):
            tokens = self.patchify(x)
            tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.pos
            return self.out(self.last(self.stack(tokens))[:, 0])

    vit = zoo.build("timm_cls")
    paths = {"blocks": "stack", "embedding": "patchify", "positions": "pos", "norm": "last", "head": "out",
             "prefix_tokens": 1}  # fmt: skip
    found = profile(anatomy(Own(vit), paths=paths), [labelled])
    same(found.table(), profile(vit, [labelled]).table())
    with pytest.raises(InputError, match="no adapter"):
        profile(Own(vit), [labelled])


def test_rotary_encoding_has_no_dominance(zoo):
    model = zoo.build("timm_rotary")
    found = profile(model, [torch.randn(3, 3, 64, 64)])
    assert found.table()["pe_dominance"].isna().all()
    assert any("pe_dominance: the positional encoding is rotary" in note for note in found.notes)
    assert found.table()["raw_similarity"].notna().all()


def test_low_precision_models(zoo, labelled):
    x, y = labelled
    low = profile(zoo.build("timm_cls").bfloat16(), [(x, y)]).table()
    full = profile(zoo.build("timm_cls"), [(x, y)]).table()
    np.testing.assert_allclose(low["raw_similarity"], full["raw_similarity"], atol=0.05)


def test_language_model_and_its_padding(zoo):
    model = zoo.build("gpt2")
    tokens = torch.randint(0, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[:2, 6:] = 0
    padded = profile(model, [{"input_ids": tokens, "attention_mask": mask}])
    short, long = tokens[:2, :6], tokens[2:]
    apart = profile(model, [{"input_ids": short}, {"input_ids": long}])
    same(padded.table(), apart.table(), rtol=1e-4)
    table = apart.table()
    assert table[["raw_similarity", "centered_similarity"]].notna().all(axis=None)
    assert table["influence"][1:-1].notna().all()
    weights = model.transformer.wpe.weight.detach().norm(dim=1)
    embedded = [model.transformer.wte(part).detach().norm(dim=-1).mean(1) for part in (short, long)]
    expected = torch.stack([weights[:6].mean()] * 2 + [weights[:9].mean()] * 2).mean() / torch.cat(embedded).mean()
    assert table["pe_dominance"][0] == pytest.approx(float(expected), rel=1e-5)
    assert table[["cls_similarity", "nc1", "nc2", "margin", "ncm_accuracy"]].isna().all(axis=None)
    assert any("language model" in note for note in apart.notes)


def test_rotary_language_model(zoo):
    table = profile(zoo.build("llama"), [torch.randint(0, 50, (3, 7))]).table()
    assert table["pe_dominance"].isna().all()
    assert table["influence"][1:-1].notna().all()


def test_tokens_all_alike_are_no_noise(zoo):
    """A blank image without positional encoding: what is left after centring is rounding, not direction."""
    model = zoo.build("timm_no_cls")
    with torch.no_grad():
        model.pos_embed.zero_()
    table = profile(model, [torch.zeros(2, 3, 16, 16)]).table()
    np.testing.assert_allclose(table["raw_similarity"], 1, atol=1e-6)
    np.testing.assert_allclose(table["centered_similarity"], 0, atol=1e-6)


def test_useful_depth_is_the_first_layer_as_good_as_the_last(zoo):
    model = zoo.build("timm_no_cls")
    with torch.no_grad():  # blocks 2 and 3 write nothing, so layer 1 reads as well as the last
        for block in model.blocks[1:]:
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
            block.mlp.fc2.weight.zero_()
            block.mlp.fc2.bias.zero_()
    x, y = zoo.images(600)
    found = profile(model, [(x, y)])
    assert found.useful_depth(margin=0.01) <= 1
    loss = found.readout_loss()
    assert (loss["loss"][1:4] == 0).all()
    np.testing.assert_allclose(loss["high"][1:4], 1 - 0.025 ** (1 / 600))  # Clopper and Pearson's: no item changes
    accuracy = found.table()["ncm_accuracy"]
    np.testing.assert_allclose(accuracy.iloc[-2] - accuracy, loss["loss"], atol=1e-12)
    assert found.useful_depth(margin=-1) == 3


def test_what_waits_holds_no_tokens(zoo, monkeypatch):
    kept = []
    monkeypatch.setattr(_States, "add", lambda self, batch: kept.append(batch))
    x, y = zoo.images()
    profile(zoo.build("timm_cls"), [(x, y)])
    assert {"cls.0", "pooled.1", "head"} <= set(kept[0].features)
    assert all(values.flags.c_contiguous for values in kept[0].features.values())


@pytest.mark.parametrize("name", ["timm_cls", "timm_registers", "torchvision_vit", "hf_vit"])
def test_dominance_position_by_position(zoo, name):
    """Against the model's own layers, called by hand."""
    model, (x, _) = zoo.build(name), zoo.images(12)
    parts = anatomy(model)
    seen = []
    handle = parts.embedding.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        model(x)
    handle.remove()
    embedded = parts.embedding_tokens(seen[0]).double()
    encoding = parts.positions.detach().double().reshape(-1, embedded.shape[-1])[-embedded.shape[1] :]
    expected = (encoding.norm(dim=1) / embedded.norm(dim=2).mean(0)).numpy()
    found = profile(model, [x[:5]]).merge(profile(model, [x[5:]]))
    np.testing.assert_allclose(found.position_dominance(), expected, rtol=1e-6)
    overall = found.table()["pe_dominance"][0]
    assert overall == pytest.approx(float(encoding.norm(dim=1).mean() / embedded.norm(dim=2).mean()), rel=1e-6)


def test_dominance_at_positions_some_texts_do_not_reach(zoo):
    model, tokens = zoo.build("gpt2"), torch.randint(0, 50, (3, 9))
    mask = torch.ones_like(tokens)
    mask[0, 4:] = 0
    found = profile(model, [{"input_ids": tokens, "attention_mask": mask}, {"input_ids": tokens[:, :2]}])
    assert list(found.positions.images) == [6, 6, 3, 3, 2, 2, 2, 2, 2]
    embedded = model.transformer.wte(tokens).detach().norm(dim=2)
    expected = model.transformer.wpe.weight[8].detach().norm() / embedded[1:, 8].mean()
    assert found.position_dominance()[8] == pytest.approx(float(expected), rel=1e-6)


def test_dominance_where_there_is_none(zoo):
    assert profile(zoo.build("llama"), [torch.randint(0, 50, (3, 7))]).position_dominance().size == 0
    sizes = [torch.randn(4, 3, 16, 16), torch.randn(4, 3, 24, 24)]
    assert np.isnan(profile(zoo.build("timm_dynamic"), sizes).position_dominance()).all()


def test_too_few_images_have_no_interval_and_shares_have_the_exact_one(zoo, vit, labelled):
    x, y = labelled
    few = profile(vit, [(x, y)]).intervals()
    means = few[few["column"] == "raw_similarity"]
    assert means[["low", "high"]].isna().all(axis=None)
    read = few[few["column"] == "ncm_accuracy"].iloc[-1]
    exact = proportion_confint(round(read["value"] * read["n"]), read["n"], method="beta")
    assert (read["low"], read["high"]) == pytest.approx(exact)
    many = profile(vit, [(torch.cat([x, x.flip(-1)]), torch.cat([y, y]))]).intervals()
    means = many[many["column"] == "raw_similarity"]
    assert (means["low"] < means["value"]).all()
    assert (means["value"] < means["high"]).all()
