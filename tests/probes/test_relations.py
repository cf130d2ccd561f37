"""Columns about attention, scrambling and the head, against plain float64 computations from stored activations."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from timm.layers import set_fused_attn

from deadweight.probes import profile
from deadweight.probes.hashes import folds, item_hashes

pytestmark = pytest.mark.slow

# id: (factory in conftest.py, how its attention maps can be had, embedding, blocks, norm, prefix tokens, CLS)
CASES = {
    "timm CLS": ("timm_cls", "timm", "patch_embed", "blocks", "norm", 1, True),
    "timm CLS and 3 registers": ("timm_registers", "timm", "patch_embed", "blocks", "norm", 4, True),
    "timm without CLS": ("timm_no_cls", "timm", "patch_embed", "blocks", "norm", 0, False),
    "timm distilled": ("timm_distilled", "timm", "patch_embed", "blocks", "norm", 2, True),
    "timm rotary": ("timm_rotary", "timm", "patch_embed", "blocks", "norm", 1, True),
    "torchvision": ("torchvision_vit", "torchvision", "conv_proj", "encoder.layers", "encoder.ln", 1, True),
    "HF ViT": (
        "hf_vit", "hf", "vit.embeddings.patch_embeddings", "vit.layers", "vit.layernorm", 1, True,
    ),
}  # fmt: skip


def stored(model, embedding, blocks, norm, x):
    """(embeddings, rows, input of the head, logits), float64, of the model in float64."""
    kept = {}

    def keep(name):
        def hook(module, args, output):
            kept[name] = (output[0] if isinstance(output, tuple) else output).numpy()

        return hook

    def keep_input(name):
        return lambda module, args, kwargs: kept.__setitem__(
            name, (args[0] if args else kwargs["hidden_states"]).numpy()
        )

    parts = list(model.get_submodule(blocks).children())
    head = next(part for name, part in model.named_modules() if name in ("head", "heads.head", "classifier"))
    handles = [parts[0].register_forward_pre_hook(keep_input("first"), with_kwargs=True)]
    handles += [head.register_forward_pre_hook(keep_input("head"), with_kwargs=True)]
    handles += [part.register_forward_hook(keep(f"block {i}")) for i, part in enumerate(parts)]
    handles += [model.get_submodule(norm).register_forward_hook(keep("norm"))]
    handles += [model.get_submodule(embedding).register_forward_hook(keep("embedding"))]
    with torch.no_grad():
        output = model(x)
    for handle in handles:
        handle.remove()
    embedded = kept["embedding"]
    if embedded.ndim == 4:
        channels_last = embedding == "patch_embed"
        embedded = embedded.reshape(len(x), -1, embedded.shape[-1]) if channels_last else (
            embedded.reshape(*embedded.shape[:2], -1).transpose(0, 2, 1)
        )  # fmt: skip
    rows = [kept["first"], *(kept[f"block {i}"] for i in range(len(parts))), kept["norm"]]
    return embedded, rows, kept["head"], getattr(output, "logits", output).numpy(), head.weight.detach().numpy()


def maps(model, how, blocks, rows, x):
    """[(B, T, T)] a block: attention weights, heads averaged, by other means than the profile's."""
    found = []
    if how == "hf":
        model.set_attn_implementation("eager")
        with torch.no_grad():
            return [part.mean(1).numpy() for part in model(x, output_attentions=True).attentions]
    if how == "torchvision":
        for block, row in zip(model.get_submodule(blocks), rows, strict=False):
            y = block.ln_1(torch.from_numpy(row))
            with torch.no_grad():
                found.append(block.self_attention(y, y, y, need_weights=True)[1].numpy())
        return found
    for block in model.get_submodule(blocks):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: found.append(out.mean(1).numpy()))
    with torch.no_grad():
        model(x)
    return found


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def case(request, zoo):
    name, how, embedding, blocks, norm, prefix, has_cls = CASES[request.param]
    model = zoo.build(name)
    x, y = zoo.images(**({"size": 64} if name == "timm_rotary" else {}))
    if name == "timm_rotary":
        y %= 5
    found = profile(model, [(x[:16], y[:16]), (x[16:], y[16:])])
    plain = zoo.build(name).double()
    plain.load_state_dict({key: value.double() for key, value in model.state_dict().items()})
    embedded, rows, given, logits, weights = stored(plain, embedding, blocks, norm, x.double())
    return {
        "found": found, "table": found.table(), "embedded": embedded, "rows": rows, "given": given, "logits": logits,
        "weights": weights, "maps": maps(plain, how, blocks, rows, x.double()), "prefix": prefix, "has_cls": has_cls,
        "y": y.numpy(), "fold": folds(item_hashes(x)), "hashes": item_hashes(x),
    }  # fmt: skip


def close(found, expected, rtol=1e-4, atol=1e-7):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def of_blocks(column):
    assert np.isnan(column.iloc[0])
    assert np.isnan(column.iloc[-1])
    return column[1:-1]


def test_attention_consensus(case):
    expected = []
    for rows in case["maps"]:
        patches = rows[:, case["prefix"] :]
        unit = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
        cosines = unit @ unit.transpose(0, 2, 1)
        n = cosines.shape[1]
        expected.append(np.mean([c[~np.eye(n, dtype=bool)].mean() for c in cosines]))
    close(of_blocks(case["table"]["aci"]), expected)


def test_cls_centrality_is_the_stationary_share(case):
    column = case["table"]["cls_centrality"]
    if not case["has_cls"]:
        assert column.isna().all()
        return
    expected = []
    for rows in case["maps"]:
        shares = []
        for matrix in rows:
            values, vectors = np.linalg.eig(matrix.T)
            leading = np.real(vectors[:, np.argmax(np.real(values))])
            shares.append(leading[0] / leading.sum() * len(matrix))
        expected.append(np.mean(shares))
    close(of_blocks(column), expected)


def test_cls_attention(case):
    column = case["table"]["cls_attention"]
    if not case["has_cls"]:
        assert column.isna().all()
        assert any("cls_attention: the model has no CLS" in note for note in case["found"].notes)
        return
    expected = [(rows[:, case["prefix"] :, 0] * rows.shape[1]).mean() for rows in case["maps"]]
    close(of_blocks(column), expected)


def plain_r2(inputs, targets, fold):
    """Inputs (B, N, K), targets (B, N, E): two folds of images, sklearn's ridge on tokens."""
    errors = total = 0.0
    for train in (~fold, fold):
        flat = StandardScaler().fit(inputs[train].reshape(-1, inputs.shape[-1]))
        x = flat.transform(inputs[train].reshape(-1, inputs.shape[-1]))
        e = targets[train].reshape(-1, targets.shape[-1])
        ridge = Ridge(alpha=1e-3 * np.trace(x.T @ x) / x.shape[1], solver="cholesky").fit(x, e)
        tried = flat.transform(inputs[~train].reshape(-1, inputs.shape[-1]))
        truth = targets[~train].reshape(-1, targets.shape[-1])
        errors += np.square(truth - ridge.predict(tried)).sum()
        total += np.square(truth - e.mean(0)).sum()
    return 1 - errors / total


def test_scrambling(case):
    table, fold, embedded = case["table"], case["fold"], case["embedded"]
    for row, tokens in enumerate(case["rows"]):
        z = tokens[:, case["prefix"] :]
        others = np.stack([np.delete(z, i, axis=1).mean(1) for i in range(z.shape[1])], 1)
        parts = [z, others]
        if case["has_cls"]:
            cls = tokens[:, :1] if row else np.broadcast_to(tokens[:1, :1], tokens[:, :1].shape)
            parts.append(np.broadcast_to(cls, z.shape))
        own, everything = plain_r2(z, embedded, fold), plain_r2(np.concatenate(parts, -1), embedded, fold)
        close(table["r2_self"][row], own, atol=1e-5)
        close(table["r2_all"][row], everything, atol=1e-5)
        assert table["isi"][row] == pytest.approx(everything - own, abs=1e-4)


def test_nc3_is_of_what_the_head_reads(case):
    column = case["table"]["nc3"]
    assert column[:-1].isna().all()
    means = np.array([case["given"][case["y"] == c].mean(0) for c in range(5)])
    if len(case["weights"]) != 5:
        assert np.isnan(column.iloc[-1])
        assert any("nc3, nc4: the label spaces differ" in note for note in case["found"].notes)
        return
    means -= means.mean(0)
    weights = case["weights"] / np.linalg.norm(case["weights"])
    close(column.iloc[-1], np.linalg.norm(weights - means / np.linalg.norm(means)))


def features(case, row, kind):
    return case["rows"][row][:, 0] if kind == "cls" else case["rows"][row][:, case["prefix"] :].mean(1)


@pytest.mark.parametrize("kind", ["cls", "pooled"])
def test_nc4_and_probe_accuracy(case, kind):
    if kind == "cls" and not case["has_cls"]:
        return
    table, y, fold = case["found"].table(features=kind), case["y"], case["fold"]
    for row in range(1 if kind == "cls" else 0, len(case["rows"])):
        x = features(case, row, kind)
        differs, right = [], []
        for train in (~fold, fold):
            means = np.array([x[train & (y == c)].mean(0) for c in np.unique(y[train])])
            nearest = np.unique(y[train])[((x[~train][:, None] - means) ** 2).sum(-1).argmin(1)]
            differs.append(nearest != case["logits"][~train].argmax(1))
            scaler = StandardScaler().fit(x[train])
            scaled = scaler.transform(x[train])
            alpha = 1e-3 * np.trace(scaled.T @ scaled) / scaled.shape[1]
            probe = RidgeClassifier(alpha=alpha, solver="cholesky").fit(scaled, y[train])
            right.append(probe.predict(scaler.transform(x[~train])) == y[~train])
        assert table["probe_accuracy"][row] == pytest.approx(np.concatenate(right).mean())
        if len(case["weights"]) == 5:
            assert table["nc4"][row] == pytest.approx(np.concatenate(differs).mean())
        else:
            assert np.isnan(table["nc4"][row])


def test_fused_attention_stays_on(zoo, monkeypatch):
    """The model calls the fused kernel as often with the profile as without."""
    model, calls = zoo.build("timm_cls"), []
    fused = torch.nn.functional.scaled_dot_product_attention

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.extend([1] if func is fused else [])
            return func(*args, **(kwargs or {}))

    with Counting():
        profile(model, [zoo.images()])
    assert len(calls) == 3


def test_attention_written_out_is_seen_at_its_softmax(zoo):
    x, _ = zoo.images()
    fused = profile(zoo.build("timm_cls"), [x], probes=["aci", "cls_centrality", "cls_attention"]).table()
    set_fused_attn(False)
    try:
        plain = profile(zoo.build("timm_cls"), [x], probes=["aci", "cls_centrality", "cls_attention"]).table()
    finally:
        set_fused_attn(True)
    np.testing.assert_allclose(plain, fused, rtol=1e-5)


def test_layers_asked_for(zoo):
    model, (x, _) = zoo.build("timm_cls"), zoo.images()
    whole = profile(model, [x]).table()["aci"]
    last = profile(model, [x], attention_layers=1).table()["aci"]
    assert last[[0, 1, 2, 4]].isna().all()
    assert last[3] == pytest.approx(whole[3])
    chosen = profile(model, [x], attention_layers=[1, 2]).table()["aci"]
    np.testing.assert_allclose(chosen[1:3], whole[1:3])


def test_windowed_attention_is_not_applicable(zoo):
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = profile(zoo.build("timm_swin"), [(x, torch.arange(8) % 2)])
    table = found.table()
    assert table[["aci", "cls_centrality", "cls_attention"]].isna().all(axis=None)
    assert any("attention is windowed" in note for note in found.notes)
    assert any("tokens are not the patches any more" in note for note in found.notes)
    assert table["isi"][:3].notna().all()
    assert table["isi"][3:].isna().all()
    assert table["raw_similarity"].notna().all()
