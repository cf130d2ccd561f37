"""Every family: the parts found are the very modules that run, and carry the shapes the architecture has."""

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

import deadweight as dw
from deadweight.anatomy import anatomy, stream
from deadweight.errors import InputError
from deadweight.models import input_shape

_SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
_VISION = dict(**_SMALL, image_size=16, patch_size=4)
_WORDS = dict(**_SMALL, vocab_size=50, bos_token_id=1, eos_token_id=2)


def _gpt2():
    from deadweight.models.gpt2 import GPT2, GPT2Config

    return GPT2(GPT2Config(vocabulary=50, length=16, width=32, depth=2, heads=2))


FAMILIES = {
    # name: (factory, family, blocks, prefix tokens, position kind, hidden units, gated)
    "timm-vit": (lambda: timm.create_model("test_vit", img_size=32), "timm", 6, 1, "learned", 192, False),
    "timm-deit-distilled": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=2, img_size=32),
        "timm", 2, 2, "learned", 768, False,
    ),
    "timm-registers": (
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2", depth=2, img_size=28),
        "timm", 2, 5, "learned", 1536, False,
    ),
    "timm-beit": (
        lambda: timm.create_model("beit_base_patch16_224", depth=2, img_size=32, embed_dim=48, num_heads=2),
        "timm", 2, 1, "relative", 192, False,
    ),
    "timm-eva-gated": (
        lambda: timm.create_model("eva02_tiny_patch14_224", depth=2, img_size=28), "timm", 2, 1, "learned", 512, True,
    ),
    "timm-swin": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
        "timm", 4, 0, "relative", 384, False,
    ),
    "hf-vit": (
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**_VISION)),
        "hf_vision", 2, 1, "learned", 64, False,
    ),
    "hf-deit": (
        lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**_VISION)),
        "hf_vision", 2, 2, "learned", 64, False,
    ),
    "hf-dinov2-registers": (
        lambda: transformers.Dinov2WithRegistersForImageClassification(
            transformers.Dinov2WithRegistersConfig(**{**_VISION, "mlp_ratio": 2})
        ),
        "hf_vision", 2, 5, "learned", 64, False,
    ),
    "hf-beit": (
        lambda: transformers.BeitForImageClassification(transformers.BeitConfig(**_VISION)),
        "hf_vision", 2, 1, "none", 64, False,
    ),
    "hf-swin": (
        lambda: transformers.SwinForImageClassification(
            transformers.SwinConfig(image_size=16, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 4],
                                    window_size=4)
        ),
        "hf_swin", 3, 0, "relative", 64, False,
    ),
    "hf-clip": (
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**_VISION)),
        "hf_towers", 2, 1, "learned", 64, False,
    ),
    "hf-clip-classifier": (
        lambda: transformers.CLIPForImageClassification(
            transformers.CLIPConfig(vision_config=_VISION, text_config=_SMALL)
        ),
        "hf_towers", 2, 1, "learned", 64, False,
    ),
    "hf-siglip": (
        lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_VISION)),
        "hf_towers", 2, 0, "learned", 64, False,
    ),
    "hf-blip": (
        lambda: transformers.BlipVisionModel(transformers.BlipVisionConfig(**_VISION)),
        "hf_towers", 2, 1, "learned", 64, False,
    ),
    "hf-dinov3": (
        lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**_VISION, num_register_tokens=4)),
        "hf_vision", 2, 5, "rotary", 64, False,
    ),
    "hf-llama": (
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_WORDS)),
        "hf_language", 2, 0, "rotary", 64, True,
    ),
    "hf-qwen2": (
        lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_WORDS, num_key_value_heads=2)),
        "hf_language", 2, 0, "rotary", 64, True,
    ),
    "hf-gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=2)
        ),
        "hf_language", 2, 0, "learned", 128, False,
    ),
    "torchvision-vit": (
        lambda: torchvision.models.VisionTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
        ),
        "torchvision", 2, 1, "learned", 64, False,
    ),
    "our-gpt2": (_gpt2, "gpt2", 2, 0, "learned", 128, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parts_of_a_family_are_found(name):
    factory, family, depth, prefix, positions, hidden, gated = FAMILIES[name]
    model = factory().eval()
    found = anatomy(model)
    assert (found.family, found.depth, found.prefix_tokens, found.position_kind) == (family, depth, prefix, positions)
    for block in found.blocks:
        assert model.get_submodule(block.path) is block.module
        assert model.get_submodule(block.mlp_paths.path) is block.mlp
        assert block.attention is not None
        assert len(block.norms) == 2
    first = found.blocks[0].mlp_paths
    assert (first.hidden, first.gated) == (hidden, gated)
    assert (found.positions is not None) == (positions == "learned")


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.endswith("swin")])
def test_the_stream_enters_the_first_block_with_prefix_and_patches(name):
    model = FAMILIES[name][0]().eval()
    found = anatomy(model)
    seen = {}

    def embedded(module, args, output):
        seen["embedding"] = found.embedding_tokens(output)

    def entered(module, args, kwargs):
        seen["stream"] = args[0] if args else kwargs["hidden_states"]

    found.embedding.register_forward_hook(embedded)
    found.blocks[0].module.register_forward_pre_hook(entered, with_kwargs=True)
    found.blocks[-1].module.register_forward_hook(lambda module, args, output: seen.update(out=stream(output)))
    if found.kind == "vision":
        size = 32 if name.startswith(("timm-vit", "timm-deit", "timm-beit")) else 28 if "timm" in name else 16
        inputs = torch.rand(2, 3, size, size)
    else:
        inputs = torch.randint(0, 50, (2, 7))
    with torch.inference_mode():
        model(inputs)
    batch, tokens, width = seen["embedding"].shape
    assert seen["stream"].shape == (batch, tokens + found.prefix_tokens, width)
    assert seen["out"].shape == seen["stream"].shape
    assert found.width == width


class _Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.patchify = nn.Conv2d(3, 8, 4, 4)
        self.pos = nn.Parameter(torch.zeros(1, 4, 8))
        block = nn.ModuleDict(
            {"ln": nn.LayerNorm(8), "ff": nn.ModuleDict({"a": nn.Linear(8, 16), "b": nn.Linear(16, 8)})}
        )
        self.tower = nn.ModuleList([block])
        self.last = nn.LayerNorm(8)


def test_hugging_faces_swin_is_looked_at_cut_and_dropped_as_its_code_runs():
    torch.manual_seed(0)
    model = FAMILIES["hf-swin"][0]().eval()
    inputs = torch.rand(4, 3, 16, 16)
    seen = []
    for layer in model.swin.encoder.layers:
        for block in layer.blocks:
            block.register_forward_hook(lambda module, args, output: seen.append(output[0].mean(1)))
    batches = [(inputs, torch.tensor([0, 1, 0, 1]))]
    profile = dw.profile(model, batches)
    assert len(profile.table()) == 5
    assert [tuple(one.shape) for one in seen[:3]] == [(4, 16), (4, 16), (4, 32)]
    small = dw.drop_blocks(model, [1])
    kept = FAMILIES["hf-swin"][0]().eval()
    kept.load_state_dict(model.state_dict())
    kept.swin.encoder.layers[0].blocks = kept.swin.encoder.layers[0].blocks[:1]
    assert torch.equal(small(inputs).logits, kept(inputs).logits)
    narrow = dw.shallow_mlps(model, 0.5)
    widths = [block.mlp.fc1.out_features for stage in narrow.swin.encoder.layers for block in stage.blocks]
    assert widths == [32, 32, 64]
    assert not torch.equal(narrow(inputs).logits, model(inputs).logits)


def test_a_tower_under_a_classifier_takes_pictures_of_its_own_size():
    assert input_shape(FAMILIES["hf-clip-classifier"][0]()) == (3, 16, 16)


def test_a_model_of_two_towers_is_answered_with_how_to_name_one():
    shapes = transformers.CLIPConfig(vision_config=_VISION, text_config=_SMALL)
    with pytest.raises(InputError, match="--paths blocks="):
        anatomy(transformers.CLIPModel(shapes))


def test_an_unknown_model_is_described_by_the_paths_its_owner_gives():
    model = _Odd()
    found = dw.anatomy(
        model,
        paths={
            "blocks": "tower", "embedding": "patchify", "mlp": "ff", "up": "a", "down": "b", "norms": ["ln"],
            "positions": "pos", "norm": "last",
        },
    )  # fmt: skip
    assert found.blocks[0].mlp_paths.down == "tower.0.ff.b"
    assert found.positions is model.pos
    assert (found.width, found.reads, found.blocks[0].mlp_paths.hidden) == (8, "pooled", 16)
    assert found.embedding_tokens(model.patchify(torch.rand(2, 3, 8, 8))).shape == (2, 4, 8)


def test_an_unknown_model_is_answered_with_how_to_name_its_paths():
    with pytest.raises(InputError, match=r'paths=\{"blocks"'):
        anatomy(_Odd())


def test_positions_added_to_the_scores_are_relative():
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=50))
    assert anatomy(bloom).position_kind == "relative"


def test_the_tokens_of_an_embedding_that_tells_its_grid_too():
    xcit = timm.create_model("xcit_nano_12_p16_224", embed_dim=32, depth=1, cls_attn_layers=1, num_heads=2)
    found = anatomy(xcit)
    with torch.inference_mode():
        assert found.embedding_tokens(found.embedding(torch.rand(2, 3, 32, 32))).shape == (2, 4, 32)


def test_a_model_of_two_streams_is_not_described_as_one():
    with pytest.raises(InputError, match="CrossVit"):
        anatomy(timm.create_model("crossvit_tiny_240"))


def test_a_model_without_attention_is_not_taken_for_a_transformer():
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=50))
    with pytest.raises(InputError, match="Mamba"):
        anatomy(mamba)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"blocks": "towr", "embedding": "patchify"}, "did you mean 'tower'"),
        ({"embedding": "patchify"}, "no 'blocks'"),
        ({"blocks": "tower", "embedding": "patchify", "mpl": "ff"}, "did you mean 'mlp'"),
        ({"blocks": "tower", "embedding": "patchify", "mlp": "fx"}, "leads nowhere in the block tower.0"),
    ],
)
def test_a_wrong_path_is_named(paths, message):
    with pytest.raises(InputError, match=message):
        anatomy(_Odd(), paths=paths)
