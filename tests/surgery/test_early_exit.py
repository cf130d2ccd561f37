"""An exit after some blocks, with a readout of its own."""

import pytest
import timm
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

import deadweight as dw
from deadweight.errors import InputError, SurgeryError
from deadweight.surgery.early_exit import PENALTIES, ridge_readout

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}
HF = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
MODELS = {
    "timm": lambda: VisionTransformer(**SHAPE),
    "timm without CLS": lambda: VisionTransformer(**SHAPE, class_token=False, global_pool="avg"),
    "torchvision": lambda: TorchvisionViT(
        image_size=16, patch_size=4, num_layers=4, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    ),
    "HF": lambda: ViTForImageClassification(ViTConfig(**HF, intermediate_size=48, num_labels=5)),
}


def logits(model, x):
    with torch.no_grad():
        found = model(x)
    return getattr(found, "logits", found)


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 5, (80,), generator=generator)
    prototypes = torch.randn(5, 3, 16, 16, generator=generator)
    return prototypes[y] + 0.3 * torch.randn(80, 3, 16, 16, generator=generator), y


@pytest.mark.parametrize("name", MODELS)
def test_reads_what_the_last_layer_cannot_and_reloads(name, labelled, tmp_path):
    torch.manual_seed(0)
    model, (x, y) = MODELS[name]().eval(), labelled
    before = logits(model, x)
    short = dw.early_exit(model, 2, batches=[(x[:40], y[:40]), (x[40:], y[40:])])
    assert dw.anatomy(short).depth == 2
    assert (logits(short, x).argmax(1) == y).float().mean() > 0.9
    assert torch.equal(logits(model, x), before)
    assert [entry["name"] for entry in dw.surgeries(short)] == ["early_exit"]
    dw.save(short, tmp_path / "short")
    back = dw.load(f"file:{tmp_path / 'short'}", model=MODELS[name]())
    assert torch.equal(logits(back, x), logits(short, x))
    assert dw.anatomy(back).depth == 2


def test_readout_is_ridge_regression(labelled):
    torch.manual_seed(0)
    features, labels = torch.randn(80, 7, dtype=torch.float64), labelled[1]
    weight, bias = ridge_readout(features, labels, 5, 1e-2)
    scaler = StandardScaler().fit(features)
    theirs = RidgeClassifier(alpha=1e-2 * 80).fit(scaler.transform(features), labels)
    scores = theirs.decision_function(scaler.transform(features))  # their targets are -1 and 1
    torch.testing.assert_close(2 * (features @ weight.T + bias) - 1, torch.from_numpy(scores))


def test_other_classes_make_another_head(labelled, tmp_path):
    torch.manual_seed(0)
    model, (x, y) = MODELS["timm"]().eval(), labelled
    short = dw.early_exit(model, 3, classes=7, batches=[(x, y)])
    assert logits(short, x).shape == (80, 7)
    dw.save(short, tmp_path / "short")
    back = dw.load(f"file:{tmp_path / 'short'}", model=MODELS["timm"]())
    assert torch.equal(logits(back, x), logits(short, x))


def test_the_head_as_it_is(labelled):
    model = MODELS["timm"]().eval()
    short = dw.early_exit(model, 4, readout=None)
    assert torch.equal(logits(short, labelled[0]), logits(model, labelled[0]))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layer": 0}, SurgeryError, "block 0 of 4"),
        ({"layer": 5}, SurgeryError, "block 5 of 4"),
        ({"layer": 2}, InputError, "without batches"),
        ({"layer": 2, "batches": [torch.zeros(2, 3, 16, 16)]}, InputError, "holds no labels"),
        ({"layer": 2, "batches": [(torch.zeros(2, 3, 16, 16), [0, 9])]}, InputError, "go from 0 to 9"),
        ({"layer": 2, "readout": "magic"}, InputError, "magic"),
    ],
)
def test_refusals(options, error, said):
    with pytest.raises(error, match=said):
        dw.early_exit(MODELS["timm"](), **options)


def test_language_models_and_headless_ones_are_refused():
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=24, n_layer=3, n_head=2))
    with pytest.raises(SurgeryError, match="language model"):
        dw.early_exit(lm, 1, readout=None)
    with pytest.raises(SurgeryError, match="no linear head"):
        dw.early_exit(VisionTransformer(**{**SHAPE, "num_classes": 0}), 1, readout=None)


TWO_HEADS = {
    "timm": lambda: timm.create_model("deit_tiny_distilled_patch16_224", **SHAPE),
    "HF": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**HF, intermediate_size=48, num_labels=5)),
}


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("name", TWO_HEADS)
def test_of_a_model_with_two_heads_the_readout_is_what_is_returned(name, classes, labelled):
    torch.manual_seed(0)
    model, (x, y) = TWO_HEADS[name]().eval(), labelled
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if "head" in parameter or "classifier" in parameter:
                weight.normal_()  # the other head is sure of itself
    kept = y < (classes or 5)
    short = dw.early_exit(model, 2, classes=classes, batches=[(x[kept], y[kept])])
    head = short.head if name == "timm" else short.cls_classifier
    said = []
    handle = head.register_forward_hook(lambda module, args, output: said.append((args[0], output)))
    returned = logits(short, x)
    handle.remove()
    features = said[0][0].double()
    assert returned.shape == (len(x), classes or 5)
    assert torch.equal(returned.argmax(1), said[0][1].argmax(1))
    assert (returned[kept].argmax(1) == y[kept]).float().mean() > 0.9
    best = min(
        float((returned.double() - features @ w.T - b).abs().max())
        for w, b in (ridge_readout(features[kept], y[kept], classes or 5, one) for one in PENALTIES)
    )
    assert best < 1e-3  # a ridge fitted to what the readout is given, and nothing else


def test_a_model_that_does_not_return_its_readout_is_refused(labelled):
    model, (x, y) = VisionTransformer(**SHAPE), labelled
    own = model.forward
    model.forward = lambda given: own(given).tanh()
    with pytest.raises(SurgeryError, match="does not return what its readout"):
        dw.early_exit(model, 2, batches=[(x, y)], inplace=True)
