"""What a depth profile, its table included, costs over the bare forward pass of the same batches."""

from __future__ import annotations

import torch

import deadweight as dw
from gpu_sections.plan import Emit, Plan, attempt
from gpu_sections.turns import ratio_row

GOAL = 1.15


def profile_pass(plan: Plan, emit: Emit) -> None:
    source, size, batch, count = "timm:vit_base_patch16_224?pretrained=false", 224, 64, 8
    if plan.rehearsal:
        source, size, batch, count = "timm:test_vit?pretrained=false", 160, 4, 2
    for dtype in ("float32", "bfloat16"):
        with attempt(emit, f"profile over the bare pass, {dtype}"):
            model = dw.load(source, dtype=dtype).to(plan.device)
            draw = torch.Generator().manual_seed(0)
            batches = [
                (torch.rand(batch, 3, size, size, generator=draw).to(plan.device), torch.arange(batch) % 10)
                for _ in range(count)
            ]

            @torch.inference_mode()
            def bare(model: torch.nn.Module = model, batches: list = batches, dtype: str = dtype) -> None:
                for images, _ in batches:
                    model(images.to(getattr(torch, dtype)))

            emit(
                ratio_row(
                    f"profile over the bare pass, {dtype}",
                    lambda model=model, batches=batches: dw.profile(model, batches).table(),
                    bare,
                    device=plan.device,
                    rounds=1 if plan.rehearsal else 3,
                    goal=GOAL,
                    model=source,
                    images=batch * count,
                )
            )
