"""compress: budgets, what is fitted to and what is measured on, every family, and what survives the disk."""

import json

import pytest
import timm
import torch
import transformers
from torchvision.models import VisionTransformer as TorchvisionViT

import deadweight as dw
from deadweight.anatomy import anatomy
from deadweight.compression import measure
from deadweight.compression.items import subsample, train_held_out_split
from deadweight.compression.moves import MOVES, Drop
from deadweight.compression.outcome import Evaluator
from deadweight.compression.plan import Plan, cut
from deadweight.compression.report import interval_text
from deadweight.compression.search import Sizes
from deadweight.compression.survey import Surveyor
from deadweight.errors import InputError
from deadweight.surgery.calibration import calibration, evaluating

pytestmark = pytest.mark.slow

PICTURE = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 24, "depth": 3, "num_heads": 2}
WORDS = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 24, "intermediate_size": 40, "vocab_size": 50}
VIT = {**WORDS, "image_size": 16, "patch_size": 4}
VIT.pop("vocab_size")
FAMILIES = {
    "timm vit": lambda: timm.create_model("vit_tiny_patch16_224", **PICTURE),
    "timm eva, gates packed": lambda: timm.create_model("eva02_tiny_patch14_224", **PICTURE),
    "timm swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=16, patch_size=2, window_size=2, embed_dim=8,
        num_heads=(1, 1, 1, 1), depths=(2, 2, 1, 1), num_classes=5,
    ),
    "torchvision": lambda: TorchvisionViT(
        image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    ),
    "hf vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)),
    "hf dinov2 without a head": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**VIT)),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**WORDS, bos_token_id=1, eos_token_id=2)
    ),
    "gemma2, norms after the MLP": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**WORDS, num_key_value_heads=2, head_dim=12, sliding_window=4)
    ),
    "gptj, blocks side by side": lambda: transformers.GPTJForCausalLM(
        transformers.GPTJConfig(
            n_embd=24, n_layer=3, n_head=2, vocab_size=50, rotary_dim=4, bos_token_id=1, eos_token_id=2
        )
    ),
    "bloom, whose MLP adds the stream": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(hidden_size=24, n_layer=3, n_head=2, vocab_size=50)
    ),
    "hf gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=24, n_layer=3, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=2)
    ),
}  # fmt: skip


def inputs_for(model, items=16):
    generator = torch.Generator().manual_seed(1)
    if anatomy(model).kind == "causal_lm":
        return torch.randint(3, 50, (items, 12), generator=generator)
    return torch.randn(items, 3, 16, 16, generator=generator)


def size(model):
    return sum(p.numel() for p in model.parameters())


def agrees(model, other, images):
    with torch.inference_mode():
        return float((model(images).argmax(1) == other(images).argmax(1)).float().mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_within_its_budget_and_back_from_disk(name, tmp_path):
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = inputs_for(model)
    budget = size(model) - sum(p.numel() for p in anatomy(model).blocks[-1].mlp.parameters())
    small = dw.compress(model, [batch], parameters=budget)
    report = small.compression
    assert report.reached
    assert size(small) <= budget
    assert report.after.parameters == size(small)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert not small.training
    names = {measure.name for measure in report.measures}
    assert names >= ({"loss", "divergence"} if anatomy(model).kind == "causal_lm" else {"cosine"})
    dw.save(small, tmp_path / "small")
    again = dw.load(f"file:{tmp_path / 'small'}", **({} if hasattr(model, "config") else {"model": FAMILIES[name]()}))
    assert dw.surgeries(again) == dw.surgeries(small)
    with torch.inference_mode():
        one, two = (m(batch) for m in (small, again))
    for mine, theirs in (
        ((one, two),) if isinstance(one, torch.Tensor) else zip(one.values(), two.values(), strict=True)
    ):
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs)


def test_two_thirds_of_a_trained_model_answer_alike(trained):
    model, pictures, others, labels = trained
    small = dw.compress(model, pictures.split(16), parameters=0.67)
    report = small.compression
    assert report.after.parameters / report.before.parameters == pytest.approx(0.67, abs=0.005)
    assert agrees(model, small, others) > 0.95
    plain = dw.shallow_mlps(model, 0.5)
    found = {measure.name: measure for measure in report.measures}
    assert found["cosine"].after.value <= found["cosine"].after.high <= 1  # 12 skewed values bound it on one side
    assert found["cosine"].after.n == report.items["held out"] == 12
    assert found["cosine"].after.value > 0.98 > agrees(model, plain, others)
    with torch.inference_mode():
        assert (small(others).argmax(1) == labels).float().mean() > 0.9


def test_the_report_measures_what_the_model_does(trained):
    """The cosine of the report is that of the final features on the held-out items, computed here by other means."""
    model, pictures, _, _ = trained
    small = dw.compress(model, [pictures], parameters=0.6)
    held = pictures[3::4]
    with torch.inference_mode():
        one, two = (m.forward_head(m.forward_features(held), pre_logits=True) for m in (model, small))
    expected = torch.nn.functional.cosine_similarity(one, two).mean()
    found = next(m for m in small.compression.measures if m.name == "cosine")
    assert found.after.value == pytest.approx(float(expected), abs=1e-6)
    assert small.compression.before.macs == dw.count(model, pictures[:1]).macs
    assert small.compression.after.macs == dw.count(small, pictures[:1]).macs


def test_held_out_items_are_neither_fitted_to_nor_chosen_by(trained):
    model, pictures, _, _ = trained
    changed = pictures.clone()
    changed[3::4] = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    one, two = (dw.compress(model, [batch], parameters=0.6) for batch in (pictures, changed))
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.compression.measures != two.compression.measures


def test_every_fourth_item_is_held_out_whatever_the_batches():
    model = torch.nn.Linear(1, 1)
    numbers = torch.arange(11.0)[:, None]
    learn, held = train_held_out_split(calibration(model, [numbers[:2], numbers[2:5], numbers[5:]], "a test"))
    assert [int(x) for batch in held for x in batch.args[0]] == [3, 7]
    assert [int(x) for batch in learn for x in batch.args[0]] == [0, 1, 2, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize(("items", "expected"), [(3, [0, 3, 7]), (11, list(range(11))), (20, list(range(11)))])
def test_a_few_items_are_spread_over_all(items, expected):
    numbers = calibration(
        torch.nn.Linear(1, 1), [torch.arange(11.0)[:, None][:4], torch.arange(11.0)[:, None][4:]], "x"
    )
    assert [int(x) for batch in subsample(numbers, items) for x in batch.args[0]] == expected


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"sharing": False, "depth": False}, {"shallow_mlps"}),
        ({"widths": False, "depth": False, "parameters": 0.8}, {"group_mlps"}),
        ({"widths": False, "sharing": False, "parameters": 0.8}, {"drop_blocks"}),
    ],
    ids=["widths", "sharing", "depth"],
)
def test_only_what_is_allowed_is_done(options, moved, trained):
    model, pictures, _, _ = trained
    small = dw.compress(model, [pictures], **{"parameters": 0.67, **options})
    assert small.compression.reached
    assert {entry["name"] for entry in dw.surgeries(small)} == moved


def test_equal_neighbours_are_found_out(trained, tmp_path):
    """Two blocks whose MLPs are equal share one, for nothing, rather than lose units; and still do once reloaded."""
    model, pictures, others, _ = trained
    import copy

    model = copy.deepcopy(model)
    model.blocks[2].mlp.load_state_dict(model.blocks[1].mlp.state_dict())
    saved = sum(p.numel() for p in model.blocks[1].mlp.parameters())
    small = dw.compress(model, [pictures], parameters=size(model) - saved, depth=False)
    assert small.blocks[1].mlp is small.blocks[2].mlp
    torch.testing.assert_close(small(others), model(others), rtol=1e-3, atol=1e-3)
    dw.save(small, tmp_path / "small")
    again = dw.load(f"file:{tmp_path / 'small'}")
    assert again.blocks[1].mlp is again.blocks[2].mlp


def test_what_is_shared_already_stays_shared(trained):
    model, pictures, _, _ = trained
    grouped = dw.group_mlps(model, 2)
    small = dw.compress(grouped, [pictures], parameters=0.7, depth=False)
    assert small.compression.reached
    assert small.blocks[0].mlp is small.blocks[1].mlp
    assert small.blocks[2].mlp is small.blocks[3].mlp


def test_macs_and_both_budgets(trained):
    model, pictures, _, _ = trained
    whole = dw.count(model, pictures[:1])
    small = dw.compress(model, [pictures], macs=0.7)
    assert dw.count(small, pictures[:1]).macs <= 0.7 * whole.macs
    small = dw.compress(model, [pictures], parameters=0.8, macs=int(0.85 * whole.macs))
    assert dw.count(small, pictures[:1]).macs <= 0.85 * whole.macs
    assert size(small) <= 0.8 * whole.parameters


def test_a_budget_out_of_reach_is_told(trained):
    model, pictures, _, _ = trained
    report = dw.compress(model, [pictures], parameters=0.01).compression
    assert not report.reached
    assert "out of reach" in report.notes[0]
    assert f"{report.after.parameters:,} parameters" in report.notes[0]


def test_distillation_only_helps(trained):
    model, pictures, _, _ = trained
    plain, taught = (dw.compress(model, [pictures], parameters=0.35, distill=steps) for steps in (0, 30))
    cosine = [
        next(m.after.value for m in small.compression.measures if m.name == "cosine") for small in (plain, taught)
    ]
    assert cosine[1] > cosine[0]
    assert all(p.requires_grad and p.grad is None for p in taught.parameters())


def test_the_report_is_json_tables_and_a_chart(trained):
    model, pictures, _, _ = trained
    report = dw.compress(model, [pictures], parameters=0.67).compression
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert told["asked"]["parameters"] == pytest.approx(0.67 * report.before.parameters)
    assert len(told["blocks"]) == 4
    assert [row["parameters"] for row in told["front"]] == sorted(
        (r["parameters"] for r in told["front"]), reverse=True
    )
    assert sum(one["chosen"] for one in told["candidates"]) <= 1
    assert list(report.sizes["before"]) == list(told["before"].values())
    assert report.chart().to_dict()
    assert "<table>" in report._repr_html_()


def test_the_report_goes_with_the_next_surgery(trained):
    model, pictures, _, _ = trained
    small = dw.compress(model, [pictures], parameters=0.8)
    assert not hasattr(dw.shallow_mlps(small, 0.5), "compression")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no budget"),
        ({"parameters": 0}, "parameters=0"),
        ({"macs": -3.0}, "macs=-3"),
        ({"parameters": float("nan")}, "parameters=nan"),
        ({"parameters": 0.5, "widths": False, "sharing": False, "depth": False}, "nothing may be changed"),
        ({"parameters": 0.5, "distill": -1}, "distill=-1"),
    ],
    ids=str,
)
def test_bad_input(options, said, trained):
    with pytest.raises(InputError, match=said):
        dw.compress(trained[0], [trained[1]], **options)


def test_too_few_inputs(trained):
    with pytest.raises(InputError, match="3 calibration inputs"):
        dw.compress(trained[0], [trained[1][:3]], parameters=0.5)
    with pytest.raises(InputError, match="batches is empty"):
        dw.compress(trained[0], [], parameters=0.5)


class Convolutional(torch.nn.Module):
    def forward(self, images):
        return images


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="no adapter knows"):
        dw.compress(Convolutional(), [torch.zeros(4, 3, 8, 8)], parameters=0.5)


def test_the_card_says_what_was_measured_until_the_next_cut(trained, tmp_path):
    small = dw.compress(trained[0], [trained[1]], parameters=0.8)
    dw.save(small, tmp_path / "small")
    card = (tmp_path / "small" / "README.md").read_text()
    found = next(m for m in small.compression.measures if m.name == "cosine")
    assert f"{found.after.value:.4g} ({interval_text(found.after)}; 1 before)" in card
    dw.save(dw.shallow_mlps(small, 0.5), tmp_path / "smaller")
    assert "What was measured" not in (tmp_path / "smaller" / "README.md").read_text()


def test_the_passes_that_measure_are_timed_but_for_a_smaller_last_batch(monkeypatch):
    model = FAMILIES["llama"]().eval()
    small = dw.drop_blocks(model, 1)
    tokens = inputs_for(model, 5)
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    nothing = Sizes(0, 0)
    with torch.inference_mode():
        held = calibration(model, tokens.split(2), "a test")
        measures, before, after, said = measure.compared(model, small, held, nothing, nothing)
        assert calls == [1, 2, 2, 1, 2, 2, 2]  # a first one to warm up; of the others five count
        evaluator = Evaluator(model, calibration(model, [tokens], "a test"))
        heard = evaluator.evaluate(small)
    assert said.startswith(f"median of {measure.ROUNDS} forward passes in turns: 2 items")
    assert min(before.seconds, after.seconds) > 0
    assert {one.name for one in measures} == {"divergence", "agreement", "loss"}
    for one in measures:
        assert one.after.value == pytest.approx(heard.mean(one.name), rel=1e-5)
    (loss,) = (one for one in measures if one.name == "loss")
    assert loss.before == pytest.approx(evaluator.own.mean("loss"), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_dropped_block_saves_is_what_is_counted(name):
    """Swin's windows and stages, masks and tables of positions: none of it is guessed."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    inputs = calibration(model, [inputs_for(model, 8)], "a test")
    with evaluating(model):
        survey = Surveyor(model, inputs, [Drop()]).run(lambda text, done: None)
    example = inputs[0].first()
    whole = dw.count(model, example.args or dict(example.kwargs))
    droppable = [choice for choices in survey.choices for choice in choices]
    assert droppable
    for choice in droppable:
        left = dw.count(dw.drop_blocks(model, choice.removes), example.args or dict(example.kwargs))
        assert choice.macs == whole.macs - left.macs
        assert choice.parameters == whole.parameters - left.parameters


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
@pytest.mark.parametrize("name", ["timm vit", "timm swin", "llama", "hf gpt2"])
def test_what_a_move_saves_is_what_is_counted(name, move):
    """One choice per place, made alone."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    inputs = calibration(model, [inputs_for(model, 8)], "a test")
    with evaluating(model):
        survey = Surveyor(model, inputs, [move]).run(lambda text, done: None)
    example = inputs[0].first()
    given = example.args or dict(example.kwargs)
    whole = dw.count(model, given)
    offered = [choices[-1] for choices in survey.choices if choices]
    assert offered
    for choice in offered:
        left = dw.count(cut(model, Plan("alone", (choice,), 0.0), inputs), given)
        assert (choice.parameters, choice.macs) == (whole.parameters - left.parameters, whole.macs - left.macs)


def test_the_block_before_a_gap_is_refitted_and_no_other(trained):
    model, pictures, _, _ = trained
    small = dw.compress(model, [pictures], parameters=0.8, widths=False, sharing=False)
    (gap,) = next(entry["arguments"]["indices"] for entry in dw.surgeries(small))
    plain = dw.drop_blocks(model, gap)
    changed = {
        key.partition(".mlp.")[0]
        for key, value in plain.state_dict().items()
        if not torch.equal(value, small.state_dict()[key])
    }
    assert changed == ({f"blocks.{gap - 1}"} if gap else set())
