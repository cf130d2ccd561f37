"""What a depth profile costs over the bare forward pass of the same batches (ViT-B/16, batch 8)."""

import torch
from side_by_side import ratio, say, where

import deadweight as dw

torch.set_num_threads(2)
model = dw.load("timm:vit_base_patch16_224?pretrained=false")
batches = [(torch.rand(8, 3, 224, 224), [i % 4 for i in range(8)]) for _ in range(2)]


def bare() -> None:
    with torch.inference_mode():
        for images, _ in batches:
            model(images)


print(where())
say("profile", ratio(lambda: dw.profile(model, batches).table(), bare, rounds=5, warmup=1), "the bare pass")
