"""Time and memory of bringing ViT-B/16 to two thirds of its parameters with 128 calibration images (random weights)."""

import resource
import time

import torch
from side_by_side import where

import deadweight as dw

torch.set_num_threads(2)
model = dw.load("timm:vit_base_patch16_224?pretrained=false")
images = torch.rand(128, 3, 224, 224, generator=torch.Generator().manual_seed(0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, worked = time.perf_counter(), time.process_time()


def note(text: str, done: float) -> None:
    print(f"  {time.perf_counter() - began:6.1f} s ({time.process_time() - worked:6.1f} s of CPU): {text}", flush=True)


print(where())
small = dw.compress(model, [images], parameters=0.67, note=note)
seconds, worked = time.perf_counter() - began, time.process_time() - worked
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
found = small.compression
print(f"compress ViT-B/16 to 67 % of its parameters: {seconds:.1f} s, {worked:.1f} s of CPU time")
print(f"  {peak:.2f} GiB above the model and the images")
print("  " + ", ".join(f"{part} {took:.1f} s" for part, took in found.took.items()))
for what in ("parameters", "macs", "seconds"):
    print(f"  {what} × {getattr(found.after, what) / getattr(found.before, what):.4f}")
for measure in found.measures:
    print(f"  {measure.name} {measure.after.value:.4f} ({measure.after.low:.4f} … {measure.after.high:.4f})")
