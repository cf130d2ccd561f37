"""Inference of ViT-B/16 with half of each MLP against the whole model; the limit is the ratio of their MACs."""

import torch
from side_by_side import ratio, say, where

import deadweight as dw

torch.set_num_threads(2)
whole = dw.load("timm:vit_base_patch16_224?pretrained=false")
half = dw.shallow_mlps(whole, keep=0.5)
images = torch.rand(8, 3, 224, 224)
with torch.inference_mode():
    print(where())
    say("baseline", ratio(lambda: whole(images), lambda: half(images)), "the time of shallow")
macs = [dw.count(model, images).macs for model in (whole, half)]
print(f"limit by MACs: {macs[0] / macs[1]:.3f} ×  ({macs[0] / 8e9:.2f} G against {macs[1] / 8e9:.2f} G an image)")
