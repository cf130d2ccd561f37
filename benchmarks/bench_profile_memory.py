"""Memory of a profile as the images go by: it does not grow (a small ViT, 10,000 random images, batches of 50)."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import torch
from side_by_side import where
from timm.models.vision_transformer import VisionTransformer

import deadweight as dw

IMAGES, BATCH = 10_000, 50
torch.set_num_threads(2)
torch.manual_seed(0)
model = VisionTransformer(img_size=32, patch_size=8, embed_dim=96, depth=6, num_heads=3, num_classes=10).eval()
curve: list[tuple[int, float]] = []


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, IMAGES, BATCH):
        if start % 1000 == 0:
            curve.append((start, psutil.Process().memory_info().rss / 2**20))
        yield torch.rand(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % 10
    curve.append((IMAGES, psutil.Process().memory_info().rss / 2**20))


print(where())
found = dw.profile(model, batches())
held = (found.images, found.moments, found.sample, found.scrambling)
for images, size in curve:
    print(f"{images:6d} images: {size:.0f} MiB resident")
full = next(size for images, size in curve if images == 5000)  # the sample of 4096 items is full by then
print(f"state: {sum(value.nbytes for state in held for value in state.arrays().values()) / 1e6:.0f} MB")
print(f"from 5,000 images on: {curve[-1][1] - full:+.0f} MiB")
