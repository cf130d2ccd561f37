"""Thin models are made at creation: each library has its own word for the width, and all agree with shallow's size."""

import pytest
import timm
import torch
import transformers
from torchvision.models import VisionTransformer

from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.surgery import shallow_mlps

pytestmark = pytest.mark.slow

VISION = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
WORDS = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=50, bos_token_id=1, eos_token_id=2)


def hf(kind, config, **shape):
    return getattr(transformers, kind)(getattr(transformers, config)(**shape))


THIN = {
    # library: (made at the whole width, made at half of it)
    "timm vit": tuple(lambda r=r: timm.create_model("vit_tiny_patch16_224", mlp_ratio=r) for r in (4.0, 2.0)),
    "timm deit": tuple(lambda r=r: timm.create_model("deit_tiny_patch16_224", mlp_ratio=r) for r in (4.0, 2.0)),
    "timm beit": tuple(
        lambda r=r: timm.create_model("beit_base_patch16_224", depth=2, mlp_ratio=r) for r in (4.0, 2.0)
    ),
    "timm eva, gated": tuple(
        lambda r=r: timm.create_model("eva02_tiny_patch14_224", depth=2, mlp_ratio=r) for r in (4.0, 2.0)
    ),
    "timm dinov2": tuple(
        lambda r=r: timm.create_model("vit_small_patch14_dinov2", depth=2, mlp_ratio=r) for r in (4.0, 2.0)
    ),
    "timm swin": tuple(
        lambda r=r: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), mlp_ratio=r)
        for r in (4.0, 2.0)
    ),
    "torchvision": tuple(
        lambda w=w: VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=w)
        for w in (96, 48)
    ),
    "hf vit": tuple(
        lambda w=w: hf("ViTForImageClassification", "ViTConfig", **VISION, intermediate_size=w) for w in (96, 48)
    ),
    "hf dinov2": tuple(lambda r=r: hf("Dinov2Model", "Dinov2Config", **VISION, mlp_ratio=r) for r in (4, 2)),
    "llama": tuple(lambda w=w: hf("LlamaForCausalLM", "LlamaConfig", **WORDS, intermediate_size=w) for w in (80, 40)),
    "hf gpt2": tuple(
        lambda w=w: hf("GPT2LMHeadModel", "GPT2Config", n_embd=24, n_layer=2, n_head=2, vocab_size=50, n_inner=w)
        for w in (96, 48)
    ),
    "our gpt2": tuple(
        lambda w=w: GPT2(GPT2Config(vocabulary=50, length=16, width=32, depth=2, heads=2, hidden=w)) for w in (128, 64)
    ),
}


@pytest.mark.parametrize("name", THIN)
def test_thin_has_the_shapes_of_shallow(name):
    whole, thin = THIN[name]
    with torch.device("meta"):
        model, made = whole(), thin()
    shallow = shallow_mlps(model, 0.5)
    assert {key: value.shape for key, value in made.state_dict().items()} == {
        key: value.shape for key, value in shallow.state_dict().items()
    }
