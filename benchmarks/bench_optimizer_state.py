"""Bytes AdamW keeps for ViT-B/16 with shared or halved MLPs against the whole model, and an average of the weights."""

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3

import deadweight.timm  # noqa: F401  # registers the names

NAME = "vit_base_patch16_224"


def held(name: str) -> tuple[int, int]:
    """(bytes of the optimizer's state after a step, bytes of an average of the weights)."""
    model = timm.create_model(name)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    state = sum(
        tensor.numel() * tensor.element_size()
        for kept in optimizer.state.values()
        for tensor in kept.values()
        if isinstance(tensor, torch.Tensor)
    )
    for weight in model.parameters():
        weight.grad = None
    optimizer.state.clear()
    average = ModelEmaV3(model)
    return state, sum(weight.numel() * weight.element_size() for weight in average.module.parameters())


def main() -> None:
    whole, whole_average = held(NAME)
    print(f"whole: {whole / 1e6:.0f} MB of optimizer state, {whole_average / 1e6:.0f} MB of average (float32)")
    for variant in ("grouped", "shallow"):
        state, average = held(f"{NAME}_{variant}")
        print(
            f"{variant}: {state / whole:.3f} × the whole model's optimizer state ({state / 1e6:.0f} MB), "
            f"{average / whole_average:.3f} × its average ({average / 1e6:.0f} MB)"
        )


if __name__ == "__main__":
    main()
