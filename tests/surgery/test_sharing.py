"""group_mlps(parts=…): attention and whole blocks, over the families."""

import pytest
import timm
import torch
import transformers

from deadweight.anatomy import anatomy
from deadweight.errors import InputError, SurgeryError
from deadweight.loading import load, save
from deadweight.surgery import drop_blocks, group_mlps, shallow_mlps

pytestmark = pytest.mark.slow

SWIN = {"img_size": 16, "patch_size": 2, "window_size": 2, "embed_dim": 8, "num_heads": (1, 1, 1, 1), "num_classes": 5}
VISION = dict(
    hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=16, patch_size=4
)
MORE = {
    "timm_swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", **SWIN),
    "timm_dinov2": lambda: timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=16, patch_size=4, num_classes=5, embed_dim=24, depth=4, num_heads=2
    ),
    "timm_deit_distilled": lambda: timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=16, patch_size=4, num_classes=5, embed_dim=24, depth=4, num_heads=2
    ),
    "hf_deit": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**VISION)),
    "hf_beit": lambda: transformers.BeitForImageClassification(transformers.BeitConfig(**VISION)),
    "hf_qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, intermediate_size=40,
            vocab_size=50, bos_token_id=1, eos_token_id=2,
        )
    ),
}  # fmt: skip
PAIRS = {"timm_swin": [[0, 1], [2, 3]]}  # stages differ in width
PARTS = [("attention",), ("block",), ("mlp", "attention")]


@pytest.fixture(scope="module")
def families(zoo):
    return {**zoo.families, **MORE}


ALL = [
    "timm_vit", "timm_deit3", "timm_beit", "timm_eva_packed", "timm_eva_two_gates", "torchvision", "hf_vit",
    "hf_dinov2", "hf_dinov2_swiglu", "llama", "hf_gpt2", *MORE,
]  # fmt: skip


def fresh(families, name):
    torch.manual_seed(0)
    model = families[name]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return model


def held(block, part):
    return {"attention": block.attention, "block": block.module, "mlp": block.mlp}[part]


def unique(model):
    return {id(p): p.numel() for p in model.parameters()}


@pytest.mark.parametrize("parts", PARTS, ids="+".join)
@pytest.mark.parametrize("name", ALL)
def test_every_family_shares_and_still_does_after_the_disk(name, parts, families, zoo, tmp_path):
    model = fresh(families, name)
    pairs = PAIRS.get(name, [[0, 1], [2, 3]])
    blocks = anatomy(model).blocks
    with torch.no_grad():  # equal neighbours lose nothing by sharing
        for first, second in pairs:
            for part in parts:
                mine, theirs = (dict(held(blocks[i], part).named_parameters()) for i in (second, first))
                for key, value in mine.items():
                    value.copy_(theirs[key])
    before = zoo.run(model)
    shared = group_mlps(model, pattern=pairs, parts=parts)
    torch.testing.assert_close(zoo.run(shared), before, rtol=1e-5, atol=1e-6)
    saved = sum(p.numel() for _, second in pairs for part in parts for p in held(blocks[second], part).parameters())
    assert sum(unique(shared).values()) == zoo.count(model) - saved
    save(shared, tmp_path / "saved")
    again = load(f"file:{tmp_path / 'saved'}", **({} if hasattr(model, "config") else {"model": families[name]()}))
    assert sum(unique(again).values()) == sum(unique(shared).values())
    assert torch.equal(zoo.run(again), zoo.run(shared))
    for first, second in pairs:
        for part in parts:
            one, two = (list(held(anatomy(again).blocks[i], part).parameters()) for i in (first, second))
            assert all(mine is theirs for mine, theirs in zip(one, two, strict=True))
    stored = (tmp_path / "saved" / "model.safetensors").stat().st_size
    buffers = sum(b.numel() * b.element_size() for b in again.buffers())
    assert stored < 4 * sum(unique(again).values()) + buffers + 40_000  # each tensor once, and a header


@pytest.mark.parametrize("parts", ["attention", "block"])
def test_each_block_keeps_its_own_cache(parts, zoo):
    """Were the module shared and not its weights, both blocks would write their keys to one place."""
    shared = group_mlps(zoo.fresh("llama"), parts=parts)
    assert [block.attention.layer_idx for block in anatomy(shared).blocks] == [0, 1, 2, 3]
    tokens = zoo.inputs(shared)
    whole = shared(tokens).logits
    cached = shared(tokens[:, :4], use_cache=True)
    rest = shared(tokens[:, 4:], past_key_values=cached.past_key_values).logits
    torch.testing.assert_close(rest, whole[:, 4:], rtol=1e-4, atol=1e-5)


def test_the_mean_is_the_average_and_drop_path_stays(zoo):
    model = zoo.fresh("timm_vit")
    model.blocks[1].drop_path1 = torch.nn.Dropout(0.5)
    shared = group_mlps(model, parts="block", merge="mean")
    expected = (model.blocks[2].attn.qkv.weight.double() + model.blocks[3].attn.qkv.weight.double()) / 2
    assert torch.equal(shared.blocks[3].attn.qkv.weight, expected.float())
    assert shared.blocks[1].drop_path1 is not shared.blocks[0].drop_path1
    assert shared.blocks[0].norm1 is shared.blocks[1].norm1


def test_a_shared_weight_is_one_weight_in_training(zoo):
    shared = group_mlps(zoo.fresh("timm_vit"), parts="block").train()
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == len(unique(shared))
    shared(zoo.inputs(shared)).square().mean().backward()
    optimizer.step()
    assert shared.blocks[0].attn.qkv.weight is shared.blocks[1].attn.qkv.weight


@pytest.mark.parametrize("parts", ["attention", "block"])
def test_a_refit_repairs_what_sharing_broke(parts, zoo):
    model = zoo.fresh("timm_vit")
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    others = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(4))

    def far(other):
        with torch.no_grad():
            return float((other(others) - model(others)).norm())

    assert far(group_mlps(model, parts=parts, refit="stream", batches=[images])) < far(group_mlps(model, parts=parts))


def test_it_composes_with_the_other_surgeries(zoo, tmp_path):
    model = shallow_mlps(drop_blocks(group_mlps(zoo.fresh("timm_vit"), parts="block"), [3]), 0.5)
    assert model.blocks[0].mlp is model.blocks[1].mlp
    assert model.blocks[0].attn.qkv is model.blocks[1].attn.qkv


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"parts": "attn"}, InputError, "did you mean 'attention'"),
        ({"parts": ()}, InputError, "no parts"),
        ({"parts": "attention", "scale": 0.5}, InputError, "those for shared MLPs"),
        ({"parts": "attention", "merge": "union"}, InputError, "those for shared MLPs"),
        ({"parts": "block", "size": 0}, InputError, "group size 0"),
        ({"parts": "attention", "pattern": [[0, 9]]}, SurgeryError, "block 9 does not exist"),
    ],
    ids=str,
)
def test_bad_input(options, kind, said, zoo):
    with pytest.raises(kind, match=said):
        group_mlps(zoo.fresh("timm_vit"), **options)


def test_what_cannot_be_shared_is_named(families):
    with pytest.raises(SurgeryError, match=r"blocks 1 and 2 cannot share"):
        group_mlps(fresh(families, "timm_swin"), pattern=[[1, 2]], parts="attention")


def test_what_is_shared_is_not_torn_apart(zoo):
    shared = group_mlps(zoo.fresh("timm_vit"), parts="attention")
    with pytest.raises(SurgeryError, match="blocks 0 and 1 share attention already"):
        group_mlps(shared, pattern=[[1, 2]], parts="attention")
    group_mlps(shared, pattern=[[1, 2]])  # MLPs are another matter
