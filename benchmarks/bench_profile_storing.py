"""Against storing every activation and attention map and computing afterwards, as users of caches do today.

Each way runs in a process of its own, so that peak memory is its own: `ours` streams; `stored` keeps hidden states and
attention maps by hooks and computes most of the columns from them with numpy and scikit-learn; `prisma` is ViT-Prisma's
cache (`pip install --no-deps --target DIR vit-prisma`, DIR on PYTHONPATH), which only collects.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from side_by_side import where
from timm.models.vision_transformer import VisionTransformer

import deadweight as dw

SIZE = {"img_size": 224, "patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3, "num_classes": 10}
BATCH = 16


def model_and_batches(count: int) -> tuple[torch.nn.Module, Iterator[tuple[torch.Tensor, torch.Tensor]]]:
    """Batches are drawn as they are asked for, as from a loader: no way has the images in its memory."""
    torch.manual_seed(0)
    model = VisionTransformer(**SIZE).eval()
    return model, ((torch.rand(BATCH, 3, 224, 224), torch.arange(BATCH) % 10) for _ in range(count // BATCH))


def ours(count: int) -> None:
    model, batches = model_and_batches(count)
    dw.profile(model, batches).table()


def stored(count: int) -> None:
    """Hidden states and attention maps of all images, then each column with numpy."""
    model, batches = model_and_batches(count)
    states: dict[int, list[np.ndarray]] = {}
    maps: dict[int, list[np.ndarray]] = {}
    embeddings: list[np.ndarray] = []
    model.patch_embed.register_forward_hook(lambda m, args, out: embeddings.append(out.numpy()))
    model.blocks[0].register_forward_pre_hook(lambda m, args: states.setdefault(0, []).append(args[0].numpy()))
    model.norm.register_forward_hook(lambda m, args, out: states.setdefault(13, []).append(out.numpy()))
    for number, block in enumerate(model.blocks):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda m, args, out, at=number + 1: maps.setdefault(at, []).append(out.numpy())
        )
        block.register_forward_hook(lambda m, args, out, at=number + 1: states.setdefault(at, []).append(out.numpy()))
    labels, fold = [], np.arange(count) % 2 == 0
    with torch.inference_mode():
        for images, truth in batches:
            model(images)
            labels.append(truth.numpy())
    truth, target = np.concatenate(labels), np.concatenate(embeddings)
    for row in sorted(states):
        columns(np.concatenate(states[row]), target, truth, fold)
        if row in maps:
            attention(np.concatenate(maps[row]))


def columns(tokens: np.ndarray, target: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> None:
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.neighbors import NearestCentroid
    from sklearn.preprocessing import StandardScaler

    patches, cls = tokens[:, 1:], tokens[:, 0]
    for values in (patches, patches - patches.mean(1, keepdims=True)):
        unit = values / np.linalg.norm(values, axis=-1, keepdims=True)
        (unit @ unit.transpose(0, 2, 1)).mean()
    others = (patches.sum(1, keepdims=True) - patches) / (patches.shape[1] - 1)
    everything = np.concatenate([patches, others, np.broadcast_to(cls[:, None], patches.shape)], -1)
    for inputs in (patches, everything):
        for train in (fold, ~fold):
            scaler = StandardScaler().fit(inputs[train].reshape(-1, inputs.shape[-1]))
            x = scaler.transform(inputs[train].reshape(-1, inputs.shape[-1]))
            ridge = Ridge(alpha=1e-3 * len(x), solver="cholesky").fit(x, target[train].reshape(len(x), -1))
            ridge.predict(scaler.transform(inputs[~train].reshape(-1, inputs.shape[-1])))
    pooled = patches.mean(1)  # CLS is the same for all images at the first row
    for train in (fold, ~fold):
        NearestCentroid().fit(pooled[train], truth[train]).predict(pooled[~train])
        RidgeClassifier().fit(pooled[train], truth[train]).predict(pooled[~train])
    means = np.stack([pooled[truth == c].mean(0) for c in np.unique(truth)])
    within = np.mean([np.cov(pooled[truth == c].T) for c in np.unique(truth)], axis=0)
    np.trace(within @ np.linalg.pinv(np.cov(means.T), rcond=1e-6, hermitian=True))


def attention(weights: np.ndarray) -> None:
    rows = weights.mean(1)
    unit = rows[:, 1:] / np.linalg.norm(rows[:, 1:], axis=-1, keepdims=True)
    (unit @ unit.transpose(0, 2, 1)).mean()
    share = np.full((len(rows), 1, rows.shape[1]), 1 / rows.shape[1])
    for _ in range(50):
        share = share @ rows


def prisma(count: int) -> None:
    """ViT-Prisma's run_with_cache over all images, its caches kept; nothing computed from them."""
    from vit_prisma.configs.HookedViTConfig import HookedViTConfig
    from vit_prisma.models.base_vit import HookedViT

    _, batches = model_and_batches(count)
    config = HookedViTConfig(
        n_layers=12, d_model=192, d_head=64, n_heads=3, d_mlp=768, image_size=224, patch_size=16, n_classes=10,
        n_channels=3, activation_name="gelu", eps=1e-6, return_type="class_logits",
    )  # fmt: skip
    model = HookedViT(config).eval()
    kept = []
    with torch.inference_mode():
        for images, _ in batches:
            kept.append(model.run_with_cache(images)[1])


WAYS = {"ours": ours, "stored": stored, "prisma": prisma}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--way", choices=list(WAYS))
    options.add_argument("--images", type=int, default=256)
    asked = options.parse_args()
    torch.set_num_threads(2)
    if asked.way:
        dw.profile  # noqa: B018  # what importing costs is not what is measured
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        WAYS[asked.way](asked.images)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": time.perf_counter() - began, "MiB": (peak - before) / 1024}))
        return
    print(where(), f"ViT-Ti/16 of random weights, {asked.images} images, peak memory above the imports'")
    found = {}
    for way in WAYS:
        if way == "prisma" and importlib.util.find_spec("vit_prisma") is None:
            print("prisma: not installed; pip install --no-deps --target DIR vit-prisma, DIR on PYTHONPATH")
            continue
        command = [sys.executable, __file__, "--way", way, "--images", str(asked.images)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{way}: does not run here: {done.stderr.strip().splitlines()[-1]}")
            continue
        found[way] = json.loads(done.stdout.splitlines()[-1])
        print(f"{way}: {found[way]['seconds']:.1f} s, {found[way]['MiB']:.0f} MiB")
    for way in found:
        if way != "ours":
            times, size = (found[way][what] / found["ours"][what] for what in ("seconds", "MiB"))
            print(f"{way} / ours: {times:.2f} × the time, {size:.1f} × the memory")


main()
