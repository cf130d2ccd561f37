"""Counts against numbers known from elsewhere: the paper's, PyTorch's own counter, and hand formulas."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from deadweight.errors import InputError
from deadweight.meters import count

PICTURE = torch.zeros(1, 3, 224, 224)
LINEAR, ATTENTION = 16_848_500_736, 715_327_488  # ViT-B/16 at 224: 12 blocks, 197 tokens, width 768


def timm_vit(*, fused=True, grouped=False, **options):
    model = timm.create_model("vit_base_patch16_224", **options)
    for block in model.blocks:
        block.attn.fused_attn = fused
    if grouped:
        for index in range(0, 12, 2):
            model.blocks[index + 1].mlp = model.blocks[index].mlp
    return model


def hf_vit(implementation):
    return ViTForImageClassification(ViTConfig(num_labels=1000, attn_implementation=implementation))


VITS = {
    "timm-fused": (timm_vit, 12),
    "timm-eager": (lambda: timm_vit(fused=False), 12),
    "torchvision": (torchvision.models.vit_b_16, 12),
    "hf-sdpa": (lambda: hf_vit("sdpa"), 12),
    "hf-eager": (lambda: hf_vit("eager"), 12),
    "timm-grouped": (lambda: timm_vit(grouped=True), 6),
}


@pytest.mark.parametrize(("build", "mlps"), VITS.values(), ids=VITS)
def test_vit_base_counts_whoever_built_it(build, mlps):
    with torch.device("meta"):  # the numbers of the weights are not needed, and making them takes seconds
        model = build()
    counts = count(model, PICTURE)
    assert counts.parameters == {12: 86_567_656, 6: 58_233_064}[mlps]
    assert counts.executed_parameters == 86_567_656
    assert counts.unique_mlps == mlps
    assert (counts.macs_linear, counts.macs_attention) == (LINEAR, ATTENTION)
    assert counts.necessary == counts.executed == ATTENTION
    assert counts.macs == LINEAR + ATTENTION


def test_thin_vit_base():
    with torch.device("meta"):
        model = timm_vit(mlp_ratio=2.0)
    counts = count(model, PICTURE)
    assert counts.parameters == counts.executed_parameters == 58_237_672
    assert counts.macs == pytest.approx(11.99e9, rel=1e-3)


def causal_lm(family, implementation):
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
        return GPT2LMHeadModel(
            GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, attn_implementation=implementation)
        ).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, attn_implementation=implementation)).eval()  # fmt: skip


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_language_models_need_only_unmasked_pairs(family, implementation, padded):
    batch, tokens, pad = 2, 16, 5
    mask = torch.ones(batch, tokens, dtype=torch.long)
    if padded:
        mask[0, :pad] = 0
    inputs = {"input_ids": torch.arange(batch * tokens).view(batch, tokens), "attention_mask": mask}
    counts = count(causal_lm(family, implementation), inputs)
    pairs = sum(sum(range(1, n + 1)) for n in ((tokens - pad if padded else tokens), tokens))
    heads, layers, width = 4, 2, 8 + 8  # of a query-key product and of a product with a value
    assert counts.necessary == pairs * heads * layers * width
    assert counts.necessary <= counts.executed <= batch * tokens**2 * heads * layers * width


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_kernel_changes_what_is_executed_not_what_is_counted(family):
    inputs = {"input_ids": torch.arange(32).view(2, 16)}
    eager, fused = (count(causal_lm(family, kernel), inputs) for kernel in ("eager", "sdpa"))
    assert eager.macs == fused.macs
    assert eager.executed > fused.executed == fused.necessary


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_linear_and_executed_agree_with_pytorchs_counter_on_eager_attention(family):
    model, ids = causal_lm(family, "eager"), torch.arange(32).view(2, 16)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(input_ids=ids)
    ours = count(model, {"input_ids": ids})
    assert ours.macs_linear + ours.executed == theirs.get_total_flops() // 2


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.line = nn.Conv1d(4, 6, 3, dilation=2)

    def forward(self, x):
        return self.line(self.up(self.down(x)).flatten(2))


def test_convolutions_agree_with_pytorchs_counter():
    model, x = Convolutions(), torch.randn(2, 4, 9, 9)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(x)
    assert count(model, x).macs == theirs.get_total_flops() // 2


class LooksAtItsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else x


def test_a_model_that_looks_at_its_numbers_is_run_for_real():
    assert count(LooksAtItsNumbers(), torch.ones(3, 4)).macs == 3 * 4 * 4
    assert count(LooksAtItsNumbers(), -torch.ones(3, 4)).macs == 0


class Masked(nn.Module):
    """Attention with a boolean mask, fused or by hand."""

    def __init__(self, kept, *, fused):
        super().__init__()
        self.register_buffer("kept", kept)
        self.fused = fused

    def forward(self, x_BTD):
        if self.fused:
            return F.scaled_dot_product_attention(x_BTD, x_BTD, x_BTD, attn_mask=self.kept)
        scores_BTT = (x_BTD @ x_BTD.mT).masked_fill(~self.kept, -torch.inf)
        return scores_BTT.softmax(-1) @ x_BTD


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "by-hand"])
def test_a_mask_is_counted_pair_by_pair(fused):
    kept = torch.eye(6, dtype=torch.bool) | (torch.arange(6) < 2)
    counts = count(Masked(kept, fused=fused), torch.randn(3, 6, 5))
    assert counts.necessary == 3 * int(kept.sum()) * (5 + 5)
    assert counts.executed == 3 * 36 * (5 + 5)
    assert counts.unique_mlps is None


def test_counting_leaves_the_model_and_torch_as_they_were():
    model = causal_lm("gpt2", "sdpa").train()
    before, attention = copy.deepcopy(model.state_dict()), F.scaled_dot_product_attention
    count(model, {"input_ids": torch.arange(8)[None]})
    assert model.training
    assert F.scaled_dot_product_attention is attention
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("inputs", ["text", torch.zeros(1, 3, 10, 10), {"nonsense": 1}], ids=["type", "shape", "name"])
def test_inputs_the_model_does_not_take_are_refused(inputs):
    with pytest.raises(InputError):
        count(timm.create_model("test_vit"), inputs)
