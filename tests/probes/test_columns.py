"""Every column against a plain float64 computation from stored activations."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from deadweight.probes import profile
from deadweight.probes.hashes import folds, item_hashes

# id: (factory in conftest.py, paths of embedding, blocks and norm, prefix tokens, CLS, encoding of the patches)
CASES = {
    "timm CLS": ("timm_cls", "patch_embed", "blocks", "norm", 1, True, lambda m: m.pos_embed[0, 1:]),
    "timm CLS and 3 registers": ("timm_registers", "patch_embed", "blocks", "norm", 4, True, lambda m: m.pos_embed[0]),
    "timm without CLS": ("timm_no_cls", "patch_embed", "blocks", "norm", 0, False, lambda m: m.pos_embed[0]),
    "timm distilled": ("timm_distilled", "patch_embed", "blocks", "norm", 2, True, lambda m: m.pos_embed[0, 2:]),
    "torchvision": (
        "torchvision_vit", "conv_proj", "encoder.layers", "encoder.ln", 1, True,
        lambda m: m.encoder.pos_embedding[0, 1:],
    ),
    "HF ViT": (
        "hf_vit", "vit.embeddings.patch_embeddings", "vit.layers", "vit.layernorm", 1, True,
        lambda m: m.vit.embeddings.position_embeddings[0, 1:],
    ),
    "HF DINOv2 with 2 registers": (
        "hf_registers", "dinov2_with_registers.embeddings.patch_embeddings", None, "dinov2_with_registers.layernorm", 3,
        True, lambda m: m.dinov2_with_registers.embeddings.position_embeddings[0, 1:],
    ),
}  # fmt: skip


def stored_activations(model, embedding, blocks, norm, x):
    """(embeddings, tokens at every row) in float64, by hooks of our own."""
    kept = {}

    def keep(name):
        def hook(module, args, output):
            kept[name] = (output[0] if isinstance(output, tuple) else output).double().numpy()

        return hook

    def keep_input(module, args, kwargs):
        kept["first"] = (args[0] if args else kwargs["hidden_states"]).double().numpy()

    parts = list(model.get_submodule(blocks).children())
    handles = [parts[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    handles += [part.register_forward_hook(keep(f"block {i}")) for i, part in enumerate(parts)]
    handles += [model.get_submodule(norm).register_forward_hook(keep("norm"))]
    handles += [model.get_submodule(embedding).register_forward_hook(keep("embedding"))]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    embedded = kept["embedding"]
    if embedded.ndim == 4:
        embedded = embedded.reshape(*embedded.shape[:2], -1).transpose(0, 2, 1)
    return embedded, [kept["first"], *(kept[f"block {i}"] for i in range(len(parts))), kept["norm"]]


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def pairs_mean(tokens):
    return np.mean([cosine(a, b) for a, b in itertools.combinations(tokens, 2)])


def plain_nc1(features, labels):
    classes = np.unique(labels)
    means = np.array([features[labels == c].mean(0) for c in classes])
    within = np.mean([np.cov(features[labels == c].T, bias=True) for c in classes], axis=0)
    between = np.cov(means.T, bias=True)
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-6, hermitian=True)) / len(classes)


def plain_nc2(features, labels):
    classes = np.unique(labels)
    means = np.array([features[labels == c].mean(0) for c in classes])
    gram = (means - means.mean(0)) @ (means - means.mean(0)).T
    simplex = np.eye(len(classes)) - np.ones((len(classes),) * 2) / len(classes)
    return np.linalg.norm(gram / np.linalg.norm(gram) - simplex / np.linalg.norm(simplex))


def plain_ncm(features, labels, fold):
    right = []
    for judged in (fold, ~fold):
        centroids = NearestCentroid().fit(features[~judged], labels[~judged])
        right.append(centroids.predict(features[judged]) == labels[judged])
    return np.concatenate(right).mean()


def plain_margin(features, labels, fold):
    margins = []
    for judged in (fold, ~fold):
        means = {c: features[~judged & (labels == c)].mean(0) for c in np.unique(labels[~judged])}
        for x, label in zip(features[judged], labels[judged], strict=True):
            wrong = min((c for c in means if c != label), key=lambda c: np.sum((x - means[c]) ** 2))
            gap = np.sum((x - means[wrong]) ** 2) - np.sum((x - means[label]) ** 2)
            margins.append(gap / 2 / np.linalg.norm(means[wrong] - means[label]))
    return np.mean(margins)


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def case(request, zoo):
    name, embedding, blocks, norm, prefix, has_cls, positions = CASES[request.param]
    model = zoo.build(name)
    if blocks is None:  # transformers moved DINOv2's layers between releases
        blocks = next(name for name, part in model.named_modules() if name.endswith((".layer", ".layers")))
    x, y = zoo.images()
    embedded, rows = stored_activations(model, embedding, blocks, norm, x)
    table = profile(model, [(x[:16], y[:16]), (x[16:], y[16:])])
    return table, embedded, rows, prefix, has_cls, positions(model).detach().double().numpy(), (x, y.numpy())


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_raw_similarity(case):
    found, _, rows, prefix, *_ = case
    close(found.table()["raw_similarity"], [np.mean([pairs_mean(z[prefix:]) for z in row]) for row in rows])


def test_centered_similarity(case):
    found, _, rows, prefix, *_ = case
    expected = [np.mean([pairs_mean(z[prefix:] - z[prefix:].mean(0)) for z in row]) for row in rows]
    close(found.table()["centered_similarity"], expected)


def test_cls_similarity(case):
    found, _, rows, prefix, has_cls, *_ = case
    if has_cls:
        expected = [np.mean([cosine(z[0], patch) for z in row for patch in z[prefix:]]) for row in rows]
        close(found.table()["cls_similarity"], expected)
    else:
        assert found.table()["cls_similarity"].isna().all()
        assert any("no CLS" in note for note in found.notes)


def test_pe_dominance(case):
    found, embedded, _, _, _, positions, _ = case
    column = found.table()["pe_dominance"]
    expected = np.linalg.norm(positions, axis=1).mean() / np.linalg.norm(embedded, axis=2).mean()
    close(column[0], expected)
    assert column[1:].isna().all()


def test_influence(case):
    found, _, rows, prefix, *_ = case
    column = found.table()["influence"]
    expected = [
        1 - np.mean([cosine(a, b) for one, two in zip(before[:, prefix:], after[:, prefix:], strict=True)
                     for a, b in zip(one, two, strict=True)])
        for before, after in itertools.pairwise(rows[:-1])
    ]  # fmt: skip
    close(column[1:-1], expected)
    assert np.isnan(column.iloc[0])
    assert np.isnan(column.iloc[-1])


@pytest.mark.parametrize("kind", ["cls", "pooled"])
def test_class_columns(case, kind):
    found, _, rows, prefix, has_cls, _, (x, labels) = case
    table = found.table(features=kind)
    if kind == "cls" and not has_cls:
        assert table[["nc1", "nc2", "margin", "ncm_accuracy"]].isna().all(axis=None)
        return
    features = [row[:, 0] if kind == "cls" else row[:, prefix:].mean(1) for row in rows]
    first = 1 if kind == "cls" else 0  # before the first block CLS is the same for all: no classes to tell apart
    fold = folds(item_hashes(x))
    order = np.argsort(item_hashes(x))
    for row in range(first, len(rows)):
        close(table["nc1"][row], plain_nc1(features[row], labels))
        close(table["nc2"][row], plain_nc2(features[row], labels))
        close(table["margin"][row], plain_margin(features[row], labels, fold))
        assert table["ncm_accuracy"][row] == pytest.approx(plain_ncm(features[row][order], labels[order], fold[order]))
    if first:
        assert np.isnan(table["nc1"][0])
        assert any("layer 0" in note for note in found.notes)


def test_table_shape(case):
    found, _, rows, _, has_cls, *_ = case
    table = found.table()
    assert list(table["layer"]) == list(range(len(rows)))
    assert list(table.columns) == [
        "layer", "raw_similarity", "centered_similarity", "cls_similarity", "pe_dominance", "influence", "aci",
        "cls_centrality", "cls_attention", "r2_self", "r2_all", "isi", "nc1", "nc2", "nc3", "nc4", "margin",
        "ncm_accuracy", "probe_accuracy",
    ]  # fmt: skip
    assert table.equals(found.table(features="cls" if has_cls else "pooled"))
