"""Tiny models with random weights, one a layout of prefix tokens and a family."""

from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
HF = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}


def timm_cls():
    return VisionTransformer(**SHAPE)


def timm_registers():
    return VisionTransformer(**SHAPE, reg_tokens=3, no_embed_class=True)


def timm_no_cls():
    return VisionTransformer(**SHAPE, class_token=False, global_pool="avg")


def timm_dynamic():
    return VisionTransformer(**SHAPE, dynamic_img_size=True)


def timm_distilled():
    return VisionTransformerDistilled(**SHAPE)


def timm_rotary():
    return timm.create_model("vit_small_patch16_rope_224", img_size=64, embed_dim=48, depth=2, num_heads=2)


def timm_swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=16, depths=(2, 1), num_heads=(2, 2)
    )


def torchvision_vit():
    return TorchvisionViT(image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48)


def hf_vit():
    return ViTForImageClassification(ViTConfig(**HF, intermediate_size=48))


def hf_registers():
    config = Dinov2WithRegistersConfig(**HF, num_register_tokens=2, mlp_ratio=2)
    return Dinov2WithRegistersForImageClassification(config)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=24, n_layer=3, n_head=2))


def llama():
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2)
    )  # fmt: skip


def lively(model):
    """Random weights large enough that layers differ, from a seed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.3 if weight.dim() > 1 else 0.1
            weight += scale * torch.randn(weight.shape, generator=generator)
    return model.eval()


def images(count=40, classes=5, size=16, seed=0):
    """(images, labels): classes differ in their mean, so that readouts have something to read."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    prototypes = torch.randn(classes, 3, size, size, generator=generator)
    return prototypes[labels] + torch.randn(count, 3, size, size, generator=generator), labels


FACTORIES = (
    timm_cls, timm_registers, timm_no_cls, timm_dynamic, timm_distilled, timm_rotary, timm_swin, torchvision_vit,
    hf_vit, hf_registers, gpt2, llama,
)  # fmt: skip


@pytest.fixture(scope="session")
def zoo():
    """zoo.build(name) -> a model; zoo.images(…) -> (images, labels)."""
    by_name = {factory.__name__: factory for factory in FACTORIES}

    def build(name):
        torch.manual_seed(0)
        return lively(by_name[name]())

    return SimpleNamespace(build=build, images=images)
