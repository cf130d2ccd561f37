"""The depth study on a model whose blocks' worth is known."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from deadweight.data import as_tensors, load_images
from deadweight.data.classes import ClassNames
from deadweight.errors import InputError
from deadweight.evaluation import label_places
from deadweight.lab import Cell, Store, Workbench
from deadweight.loading import load, save
from deadweight.studies.depth.leave_out import block_effects
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.advice import actions
from deadweight.studies.frame.models import ModelRef
from deadweight.studies.frame.run import load_study, packaged_studies, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ViT trained for a moment on digits, whose blocks 3 to 6 add nothing to the stream."""
    torch.manual_seed(0)
    model = load("embedded:digits-vit")
    with torch.no_grad():
        for block in model.blocks[2:]:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    x, y = as_tensors(load_images("embedded:digits").train)
    idle = ("blocks.2", "blocks.3", "blocks.4", "blocks.5")
    used = [weight for name, weight in model.named_parameters() if not name.startswith(idle)]
    optimizer = torch.optim.AdamW(used, 2e-3)
    torch.set_num_threads(1)  # a model this small only waits for a second thread
    model.train()
    for _ in range(8):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    torch.set_num_threads(2)
    target = tmp_path_factory.mktemp("models") / "digits"
    save(model.eval(), target)
    return target


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    study = DepthStudy(vision=f"file:{folder}", images="embedded:digits", margin=0.02)
    return study, run(study, tmp_path_factory.mktemp("run"))


def test_verdicts_rest_on_leaving_blocks_out(done):
    _, records = done
    assert not records.failed
    verdicts = {finding.id: finding.verdict for finding in records.findings()}
    assert verdicts["depth-block-1"] == "needed"
    assert [verdicts[f"depth-block-{block}"] for block in (3, 4, 5, 6)] == ["dead weight"] * 4
    assert verdicts["depth-useful"] is None
    assert verdicts["depth-positions"] is None


def test_too_few_images_cannot_show_that_a_point_is_not_lost(folder, tmp_path):
    """None of 359 answers changes: the exact upper end is 1.02 points, so at a margin of one nothing is settled."""
    records = run(DepthStudy(vision=f"file:{folder}", images="embedded:digits"), tmp_path)
    idle = next(finding for finding in records.findings() if finding.id == "depth-block-4")
    assert idle.high == pytest.approx(1 - 0.025 ** (1 / 359))
    assert idle.verdict == "undecided"
    advice = actions(tmp_path, [finding.as_json() for finding in records.findings()])["depth-block-4"]
    assert re.search(r"about [\d,]+ images instead of 359", advice.sentence)


def test_losses_equal_accuracy_by_hand(done, folder):
    _, records = done
    model = load(f"file:{folder}")
    x, y = as_tensors(load_images("embedded:digits").validation)
    with torch.no_grad():
        before = (model(x).argmax(1) == y).double().mean()
        model.blocks[0] = torch.nn.Identity()
        after = (model(x).argmax(1) == y).double().mean()
    losses = {effect.id: effect.estimate for effect in block_effects(next(iter(records.where(kind="skip"))), 0.01)}
    assert losses["block-1"].value == pytest.approx(float(before - after), abs=1e-12)
    finding = next(finding for finding in records.findings() if finding.id == "depth-block-1")
    assert re.search(rf"costs {100 * losses['block-1'].value:.3g} points of accuracy", finding.claim)
    assert finding.low < finding.estimate < finding.high


def test_readout_of_idle_blocks_is_the_same(done):
    _, records = done
    table = pd.DataFrame(next(iter(records.where(kind="profile"))).result["table"])
    np.testing.assert_allclose(table["ncm_accuracy"][2:7], table["ncm_accuracy"][2])
    np.testing.assert_allclose(table["influence"][3:7].astype(float), 0, atol=1e-6)
    useful = next(finding for finding in records.findings() if finding.id == "depth-useful")
    assert re.search(r"off after block [12] of 6 as well", useful.claim)


def test_results_repeat_bit_for_bit(done, folder, tmp_path):
    _, records = done
    again = run(DepthStudy(vision=f"file:{folder}", images="embedded:digits", margin=0.02), tmp_path)
    assert {record.key: record.result for record in again} == {record.key: record.result for record in records}


def test_page(done):
    study, records = done
    (section,) = study.sections(records)
    assert {figure.id for figure in section.figures} == {
        "depth-skip", "depth-similarity", "depth-influence", "depth-readout", "depth-nc1", "depth-scrambling",
        "depth-attention", "depth-dominance",
    }  # fmt: skip
    for figure in section.figures:
        figure.chart.to_dict()
        assert figure.caption
    assert len(section.tables[0].frame) == 8
    assert study.sections(records.where(kind="nothing")) == []


def test_untrained_weights_get_no_verdicts(tmp_path):
    records = run(DepthStudy(vision="embedded:digits-vit", limit=60), tmp_path)
    assert not records.failed
    findings = records.findings()
    assert len(findings) >= 6
    assert {finding.verdict for finding in findings} == {None}


def test_a_model_at_chance_gets_no_verdicts(tmp_path):
    """Every block of a model that always says the same can go without loss; that makes none dead weight."""
    torch.manual_seed(0)
    model = load("embedded:digits-vit")
    with torch.no_grad():
        model.head.weight.zero_()
    save(model, tmp_path / "model")
    study = DepthStudy(vision=f"file:{tmp_path / 'model'}", limit=100)
    records = run(study, tmp_path / "run")
    assert {finding.verdict for finding in records.findings()} == {None}
    assert "there are no verdicts" in study.sections(records)[0].lead


def test_head_of_other_classes_is_judged_by_its_own_predictions(tmp_path):
    torch.manual_seed(0)
    save(load("embedded:digits-vit", num_classes=4), tmp_path / "model")
    with pytest.raises(InputError, match="4 classes apart and the images come in 10"):
        run(DepthStudy(vision=f"file:{tmp_path / 'model'}", limit=50), tmp_path / "refused")
    study = DepthStudy(vision=f"file:{tmp_path / 'model'}", images="embedded:digits?classes=none", limit=50)
    records = run(study, tmp_path / "run")
    result = next(iter(records.where(kind="skip"))).result
    assert result["measure"] == "agreement"
    assert set(result["intact"]) == {"1"}
    assert all("changes" in f.claim for f in records.findings() if f.id.startswith("depth-block"))
    assert "predictions change" in study.sections(records)[0].lead


def test_model_of_another_cell(folder, tmp_path):
    key = "abcd" * 4
    study = DepthStudy(model_cell=key, limit=50)
    assert [cell.needs for cell in study.cells()] == [(key,)] * 2
    store = Store(tmp_path)
    store.folder_of(key).mkdir(parents=True)
    save(load(f"file:{folder}"), store.folder_of(key) / "model")
    cell = next(cell for cell in study.cells() if cell.kind == "skip")
    outcome = study.run(cell, Workbench(store.folder_of(cell.key), store, cell))
    assert outcome.result["n"] == 50


def test_options():
    assert yaml.safe_load(packaged_studies()["mini-2511.21635"].read_text(encoding="utf-8"))["study"] == "depth"
    assert load_study("mini-2511.21635").small == (4, 8, 12)
    assert load_study("paper-2511.21635").vision == "timm:vit_base_patch16_224"
    assert not ModelRef("embedded:digits-vit").trained
    assert not ModelRef("timm:vit_tiny_patch16_224?pretrained=false").trained
    assert ModelRef("file:somewhere").trained
    assert isinstance(DepthStudy(vision="file:somewhere", images="embedded:nothing"), DepthStudy)
    with pytest.raises(InputError):
        DepthStudy(vision="embedded:digits-vit", images="embedded:nothing").cells()
    with pytest.raises(ValueError, match="name the model"):
        DepthStudy()


def test_label_places_follow_names():
    class Named(torch.nn.Module):
        config = type("Config", (), {"id2label": {0: "dog", 1: "cat"}})

    assert label_places(Named(), ["cat", "dog"], 2)[0] == [1, 0]
    assert label_places(torch.nn.Identity(), ["cat", "dog"], 2)[0] == [0, 1]
    assert label_places(torch.nn.Identity(), ClassNames(["cat", "dog"], "other"), 1000) is None
    with pytest.raises(InputError, match="1000 classes apart and the images come in 2"):
        label_places(torch.nn.Identity(), ["cat", "dog"], 1000)
    assert Cell("depth", "skip").key != Cell("depth", "profile").key
