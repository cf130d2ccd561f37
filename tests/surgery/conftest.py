"""Small models of every family, with weights that hide no mistakes, for the surgery tests."""

from types import SimpleNamespace

import pytest
import timm
import torch
import transformers
from torchvision.models import VisionTransformer as TorchvisionViT

from deadweight.anatomy import anatomy

PICTURE = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 24, "depth": 4, "num_heads": 2}


def timm_vit(**options):
    return timm.create_model("vit_tiny_patch16_224", **PICTURE, **options)


def hf_vit():
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=16,
            patch_size=4,
        )
    )


def hf_dinov2(swiglu=False):
    return transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=4,
            use_swiglu_ffn=swiglu,
        )
    )  # fmt: skip


def llama(layers=4):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=24, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=40, vocab_size=50,
            mlp_bias=True, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def hf_gpt2(layers=4):
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=24, n_layer=layers, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=2)
    )


FAMILIES = {
    "timm_vit": timm_vit,
    "timm_deit3": lambda: timm.create_model("deit3_small_patch16_224", **PICTURE),
    "timm_beit": lambda: timm.create_model("beit_base_patch16_224", **PICTURE),
    "timm_eva_packed": lambda: timm.create_model("eva02_tiny_patch14_224", **PICTURE),
    "timm_eva_two_gates": lambda: timm.create_model("eva02_base_patch14_224", **PICTURE),
    "torchvision": lambda: TorchvisionViT(
        image_size=16, patch_size=4, num_layers=4, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    ),
    "hf_vit": hf_vit,
    "hf_dinov2": hf_dinov2,
    "hf_dinov2_swiglu": lambda: hf_dinov2(swiglu=True),
    "llama": llama,
    "hf_gpt2": hf_gpt2,
}


def inputs(model):
    if anatomy(model).kind == "causal_lm":
        return torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model):
    out = model.eval()(inputs(model))
    return out if isinstance(out, torch.Tensor) else out.logits


def fresh(name):
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    with torch.no_grad():  # zero biases and unit norms would hide mistakes
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return model


def count(model):
    return sum(weight.numel() for weight in model.parameters())


@pytest.fixture(scope="session")
def zoo():
    return SimpleNamespace(families=FAMILIES, fresh=fresh, run=run, count=count, inputs=inputs)


@pytest.fixture(params=FAMILIES)
def family(request):
    """The name of each family in turn."""
    return request.param
