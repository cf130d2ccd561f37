"""The mlp study: plan, small runs from training to page, findings that follow from the records."""

import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from scipy import stats

from deadweight.data import as_tensors, load_images
from deadweight.errors import InputError, SourceError
from deadweight.lab import Cell, Record, Records, Store, run_cells
from deadweight.loading import load, save
from deadweight.models import transform
from deadweight.studies.frame.run import load_study
from deadweight.studies.mlp import variants as mlp_variants
from deadweight.studies.mlp.cut_vision import calibration_images, cut_and_refit
from deadweight.studies.mlp.study import MlpStudy
from deadweight.studies.mlp.trained_variants import effect_size
from deadweight.studies.mlp.variants import Cuts, Shape, build_variant, fresh, patch_for
from deadweight.surgery import group_mlps, shallow_mlps
from deadweight.training import Recipe

pytestmark = pytest.mark.slow

TINY = {"limit": 60, "epochs": 2, "dim": 16, "depth": 2, "heads": 2, "patch_size": 4, "seeds": (0, 1)}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small only wait for a second thread."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


def run(study, folder):
    store = Store(folder)
    cells = study.cells()
    run_cells(cells, study.run, store)
    found = [store.record(cell) for cell in cells]
    assert None not in found, [path.read_text() for path in folder.rglob("attempts/*.json")]
    return Records(found), store


def test_the_plan_is_a_grid_and_one_timing():
    cells = MlpStudy(**TINY).cells()
    grid = [(cell.params["variant"], cell.params["seed"]) for cell in cells if cell.kind == "train"]
    assert grid == [(name, seed) for seed in (0, 1) for name in ("baseline", "grouped", "shallow")]
    assert [cell.kind for cell in cells if cell.exclusive] == ["time"]
    assert len({cell.key for cell in cells}) == len(cells)
    moved = MlpStudy(**TINY, seed=10).cells()
    assert [cell.params["seed"] for cell in moved if cell.kind == "train"] == [10] * 3 + [11] * 3


def test_from_training_to_the_page(tmp_path):
    study = MlpStudy(**TINY)
    records, store = run(study, tmp_path / "one")
    again, _ = run(study, tmp_path / "two")
    assert [record.result for record in records] == [record.result for record in again]
    for record in records.where(kind="train"):
        model = load(f"file:{store.folder_of(record.key) / 'model'}")
        data = load_images("embedded:digits", limit=60)
        with torch.inference_mode():
            right = [
                int(model(image[None]).argmax()) == label for image, label in (data.validation[i] for i in range(60))
            ]
        assert record.result["correct"] == "".join("01"[hit] for hit in right)
        assert record.result["top1"] == pytest.approx(np.mean(right))
        assert record.result["parameters"] == sum(weight.numel() for weight in model.parameters())
        assert not (store.folder_of(record.key) / "checkpoint").exists()
    assert [record.result["unique_mlps"] for record in records.where(kind="train", seed=0)] == [2, 1, 2]
    findings = study.judge(records)
    assert [finding.id for finding in findings] == [
        "mlp-grouped", "mlp-shallow", "mlp-grouped-late", "mlp-shallow-late", "mlp-grouped-speed", "mlp-shallow-speed",
    ]  # fmt: skip
    assert [finding.verdict is None for finding in findings] == [False, False, True, True, True, True]
    (section,) = study.sections(records)
    assert list(section.tables[0].frame["model"]) == ["baseline", "grouped", "shallow"]
    assert all(figure.chart.to_dict() for figure in section.figures)
    json.dumps([record.as_json() for record in records], allow_nan=False)


ITEMS = 1000


def recorded(right):
    """Records as training would leave them: {variant: [bits of right answers, one per seed]}."""
    made = []
    for name, seeds in right.items():
        for seed, bits in enumerate(seeds):
            result = {
                "top1": float(np.mean(bits)), "top5": 1.0, "peak_epoch": 1, "degradation": 0.0, "n": len(bits),
                "parameters": 300 if name == "baseline" else 200, "unique_mlps": 6, "macs": 10,
                "curves": {"train_loss": [1.0], "top1": [float(np.mean(bits))], "top5": [1.0], "ema_top1": []},
                "correct": "".join(str(int(bit)) for bit in bits),
            }  # fmt: skip
            made.append(Record(Cell("mlp", "train", {"variant": name, "seed": seed, "images": "x:y"}), result, {}, {}))
    return Records(made)


def answers(wrong):
    """Right answers but for the first `wrong` images: the same images for every seed that has as many."""
    return [int(at >= wrong) for at in range(ITEMS)]


BASE = [answers(30)] * 5


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [([30] * 5, "dead weight"), ([80, 90, 85, 80, 82], "needed"), ([30, 60, 10, 60, 40], "undecided")],
    ids=["nothing lost", "five points lost", "nobody can tell"],
)
def test_the_verdict_allows_for_images_and_seeds(wrong, verdict):
    findings = {f.id: f for f in MlpStudy().judge(recorded({"baseline": BASE, "shallow": [answers(w) for w in wrong]}))}
    found = findings["mlp-shallow"]
    assert found.verdict == verdict
    lost = [(one - 30) / ITEMS for one in wrong]
    assert found.estimate == pytest.approx(statistics.fmean(lost))
    assert "33% fewer parameters" in found.claim
    assert {source.name for source in found.sources} == {"images", "seeds"}
    over_seeds = stats.t.ppf(0.975, 4) * statistics.stdev(lost) / math.sqrt(5)
    assert found.high - found.estimate >= over_seeds  # no narrower than over the seeds alone


def test_the_papers_test_is_the_paired_t_test_over_seeds():
    wrong = [80, 90, 85, 80, 82]
    records = recorded({"baseline": BASE, "shallow": [answers(w) for w in wrong]})
    (table,) = MlpStudy().sections(records)[0].tables
    expected = stats.ttest_rel([1 - 0.03] * 5, [1 - w / ITEMS for w in wrong]).pvalue
    assert float(table.frame["p (Holm)"][1]) == pytest.approx(expected, abs=5e-4)


def test_one_seed_settles_nothing_about_other_seeds():
    findings = MlpStudy().judge(recorded({"baseline": BASE[:1], "grouped": BASE[:1]}))
    assert findings[0].verdict == "undecided"
    assert MlpStudy().sections(recorded({"baseline": BASE[:1], "grouped": BASE[:1]}))


def test_the_baseline_alone_and_nothing_at_all():
    assert not MlpStudy().judge(recorded({"baseline": BASE}))
    assert MlpStudy().sections(recorded({"baseline": BASE}))
    assert MlpStudy().sections(Records([])) == []
    assert not MlpStudy().judge(recorded({"grouped": BASE}))


def test_variants_are_the_papers():
    data = load_images("embedded:digits", limit=40)
    shape = Shape(4, 16, 4, 2)
    built = {
        name: build_variant(name, lambda **changes: fresh(None, shape, data, 3, **changes), Cuts())
        for name in ("baseline", "grouped", "shallow", "thin")
    }
    base = built["baseline"].blocks
    torch.testing.assert_close(built["grouped"].blocks[1].mlp.fc1.weight, base[0].mlp.fc1.weight * 2**-0.5)
    assert torch.equal(built["shallow"].blocks[1].mlp.fc2.weight, base[1].mlp.fc2.weight[:, :32])
    sizes = {name: sum(weight.numel() for weight in model.parameters()) for name, model in built.items()}
    assert sizes["thin"] == sizes["shallow"] < sizes["baseline"]
    assert built["grouped"].blocks[0].attn is not built["grouped"].blocks[1].attn


def test_the_first_layer_starts_as_if_images_were_standardised():
    data = load_images("embedded:digits")
    images = torch.stack([data.train[index][0] for index in range(len(data.train))])
    plain = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=16, depth=2,
        num_heads=2, weight_init="jax",
    )  # fmt: skip
    ours = fresh(None, Shape(4, 16, 2, 2), data, 0)
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        plain.patch_embed.proj.weight.mul_(images.std())
        plain.patch_embed.proj.bias.zero_()
        expected = plain.patch_embed((images[:9] - images.mean()) / images.std())
        torch.testing.assert_close(ours.patch_embed(images[:9]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "patch"), [((8, 8), 2), ((28, 28), 7), ((32, 32), 8), ((9, 6), 3), ((7, 7), 7)])
def test_patches(size, patch):
    assert patch_for(size) == patch


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of coloured pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for place, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir()
        for number in range(10):
            pixels = generator.integers(0, 80, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 - place] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def saved_vit(folder, classes, pictures=None):
    """A ViT of random weights; given `pictures`, its head is fitted to them, so that it does tell their classes."""
    torch.manual_seed(0)
    model = load(
        "timm:vit_tiny_patch16_224", pretrained=False, img_size=16, patch_size=8, num_classes=classes, embed_dim=24,
        depth=4, num_heads=2,
    )  # fmt: skip
    if pictures is not None:
        data = load_images(f"folder:{pictures}", transform=transform(model))
        images, labels = as_tensors(data.train)
        with torch.no_grad():
            pooled = model.forward_head(model.forward_features(images), pre_logits=True)
            centre = pooled.mean(0)
            wanted = torch.nn.functional.one_hot(labels, classes).float()
            model.head.weight.copy_(torch.linalg.lstsq(pooled - centre, wanted).solution.T)
            model.head.bias.copy_(-(model.head.weight @ centre))
    save(model, folder)
    return f"file:{folder}"


@pytest.mark.parametrize(("classes", "measure"), [(3, "accuracy"), (7, "agreement")])
def test_a_users_own_model_is_cut_and_not_retrained(classes, measure, pictures, tmp_path):
    images = f"folder:{pictures}" + ("?classes=none" if measure == "agreement" else "")
    study = MlpStudy(vision=saved_vit(tmp_path / "mine", classes, pictures), images=images)
    records, _ = run(study, tmp_path / "out")
    (record,) = records
    assert record.cell.kind == "cut"
    result = record.result
    assert result["measure"] == measure
    assert set(result["cuts"]) == {"shallow", "grouped"}
    assert result["calibration"] == len(study.pictures().train)
    assert result["cuts"]["grouped"]["unique_mlps"] == 2
    assert {cut["refit"] for cut in result["cuts"].values()} == {"stream"}
    assert result["cuts"]["shallow"]["parameters"] < result["intact"]["parameters"]
    if measure == "agreement":
        assert set(result["intact"]["correct"]) == {"1"}
    findings = study.judge(records)
    assert [finding.id for finding in findings] == ["mlp-cut-shallow", "mlp-cut-grouped"]
    assert all(finding.verdict for finding in findings)
    lost = np.mean([int(bit) for bit in result["intact"]["correct"]]) - np.mean(
        [int(bit) for bit in result["cuts"]["shallow"]["correct"]]
    )
    assert findings[0].estimate == pytest.approx(lost)
    (section,) = study.sections(records)
    assert all(figure.chart.to_dict() for figure in section.figures)


def test_a_model_at_chance_gets_no_verdicts(pictures, tmp_path):
    study = MlpStudy(vision=saved_vit(tmp_path / "mine", 3), images=f"folder:{pictures}")
    records, _ = run(study, tmp_path / "out")
    assert records[0].result["works"] is False
    assert [finding.verdict for finding in study.judge(records)] == [None, None]


def test_untrained_weights_get_no_verdict(pictures, tmp_path):
    source = "timm:test_vit?pretrained=false"
    study = MlpStudy(vision=source, images=f"folder:{pictures}?classes=none")
    records, _ = run(study, tmp_path)
    assert [finding.verdict for finding in study.judge(records)] == [None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": ("grouped",)},
        {"variants": ("baseline", "baseline")},
        {"seeds": ()},
        {"variants": ("baseline", "wide")},
        {"recipe": {"lr": -1}},
        {"recipe": {"learning": 1}},
        {"keep": 0.0},
        {"epochs": 0},
        {"recipe": {"augment": "none"}},
        {"image_size": 0},
    ],
    ids=str,
)
def test_options_that_make_no_sense(wrong):
    with pytest.raises((ValidationError, InputError)):
        MlpStudy(**wrong)


def test_a_model_that_cannot_be_sized_is_refused():
    with pytest.raises(InputError, match="cannot be sized"):
        MlpStudy(model="hf:some/model").cells()


NAMES = ("mini-2512.01059", "mini-2512.01059-mnist5k", "paper-2512.01059")


def test_the_packaged_studies():
    mini, second, paper = (load_study(name) for name in NAMES)
    for study in (mini, second, paper):
        assert study.variants == ("baseline", "grouped", "shallow", "thin")
    assert mini.images == MlpStudy.for_audit().images == "embedded:digits"
    assert len(mini.seeds) == len(second.seeds) == 5
    assert paper.recipe_for(42) == Recipe.paper()
    assert (paper.image_size, paper.seeds) == (224, (42, 43))
    with pytest.raises(SourceError, match="imagenet"):  # before anything is computed
        paper.cells()


def test_a_miniature_of_the_paper_study(pictures, tmp_path):
    """Everything the full one turns on, on three classes of pictures and a ViT of two blocks."""
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp_variants, "load", lambda source, **options: load(source, **{**options, **small}))
        study = MlpStudy(
            images=f"folder:{pictures}", model="timm:vit_base_patch16_224", image_size=16, based_on="paper", epochs=2,
            variants=("baseline", "grouped"), seeds=(0,), recipe={"batch_size": 8}, trackers=("tensorboard",),
            workers=1,
        )  # fmt: skip
        records, store = run(study, tmp_path)
    for record in records.where(kind="train"):
        folder = store.folder_of(record.key)
        curves = pd.read_parquet(folder / "curves.parquet")
        assert list(curves["ema_top1"]) == record.result["curves"]["ema_top1"]
        assert list(curves["epoch"]) == [1, 2]
        assert list((folder / "deadweight").glob("events*"))
    (section,) = study.sections(records)
    assert "average top-1 %" in section.tables[0].frame


def test_effect_size_is_cohens():
    before, after = [0.97, 0.98, 0.96], [0.95, 0.97, 0.96]
    lost = np.subtract(before, after)
    assert effect_size(before, after) == pytest.approx(lost.mean() / lost.std(ddof=1))
    assert effect_size([0.9], [0.8]) is None
    assert effect_size([0.9, 0.8], [0.8, 0.7]) is None  # the same loss twice: no spread to measure it in


def test_a_cut_is_refitted_on_training_images_and_judged_on_others(pictures, tmp_path):
    """What the record counts is what the surgery, called by hand, does; labels play no part."""
    model = load(saved_vit(tmp_path / "mine", 3, pictures))
    data = load_images(f"folder:{pictures}", transform=transform(model))
    outcome = cut_and_refit(model, data, lambda text, done: None)
    batches = calibration_images(data)
    images, truth = as_tensors(data.validation)
    for name, cut in (
        ("shallow", shallow_mlps(model, 2 / 3, by="activation", refit="stream", batches=batches)),
        ("grouped", group_mlps(model, 2, merge="union", refit="stream", batches=batches)),
    ):
        with torch.inference_mode():
            right = cut(images).argmax(1) == truth
        assert outcome.result["cuts"][name]["correct"] == "".join("01"[hit] for hit in right.tolist())
    assert sum(len(batch) for batch in batches) == len(data.train)
