"""What the depth study tries beside leaving blocks out, on models small enough to check by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from deadweight.data import as_tensors, load_images, load_text
from deadweight.evaluation import from_bits, token_sequences
from deadweight.lab import Cell, Store
from deadweight.loading import load, load_lm, save
from deadweight.studies.depth import language, shorten
from deadweight.studies.depth.cls_token import cls_hidden
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.run import run
from deadweight.surgery import drop_blocks, scale_positions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ViT trained for a moment on digits, whose blocks 4 to 6 add nothing to the stream."""
    torch.manual_seed(0)
    model = load("embedded:digits-vit")
    with torch.no_grad():
        for block in model.blocks[3:]:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    x, y = as_tensors(load_images("embedded:digits").train)
    idle = ("blocks.3", "blocks.4", "blocks.5")
    used = [weight for name, weight in model.named_parameters() if not name.startswith(idle)]
    optimizer = torch.optim.AdamW(used, 3e-3)
    model.train()
    for _ in range(2):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    target = tmp_path_factory.mktemp("models") / "digits"
    save(model.eval(), target)
    return target


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    experiments = ("positions", "cls", "shorten", "exit")
    study = DepthStudy(vision=f"file:{folder}", limit=200, experiments=experiments, margin=0.1)
    out = tmp_path_factory.mktemp("run")
    return study, run(study, out), out


@pytest.fixture(scope="module")
def held_out():
    return as_tensors(load_images("embedded:digits", limit=200).validation)


def result(done, kind):
    return next(iter(done[1].where(kind=kind))).result


def accuracy(model, held_out):
    with torch.no_grad():
        return float((model(held_out[0]).argmax(1) == held_out[1]).double().mean())


def test_positions_at_every_strength(done, folder, held_out):
    strengths = {one["strength"]: one for one in result(done, "positions")["strengths"]}
    assert list(strengths) == [0, 0.25, 0.5, 1, 2]
    model = load(f"file:{folder}")
    for strength, one in strengths.items():
        expected = accuracy(scale_positions(model, strength), held_out)
        assert np.mean(from_bits(one["correct"])) == pytest.approx(expected, abs=1e-12)
    dominance = [one["table"][0]["pe_dominance"] for one in strengths.values()]
    np.testing.assert_allclose(dominance, np.array([0, 0.25, 0.5, 1, 2]) * dominance[3], rtol=1e-5)


def test_cls_hidden_is_a_mask_of_its_column(folder, held_out):
    """Against attention written out, its first column set to −∞ for the patches."""
    model = load(f"file:{folder}")
    with cls_hidden() as seen, torch.no_grad():
        found = model(held_out[0][:5])
    assert seen.calls == 6

    def hidden(self, x, attn_mask=None, **_):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        scores[:, :, 1:, 0] = -torch.inf
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))

    for block in model.blocks:
        block.attn.forward = hidden.__get__(block.attn)
    with torch.no_grad():
        torch.testing.assert_close(model(held_out[0][:5]), found, rtol=1e-4, atol=1e-5)


def test_cls_ablation(done, held_out):
    found = result(done, "cls")
    assert len(found["masked"]) == len(held_out[1])
    assert set(found["readouts"]) == {"cls", "pooled"}
    table = next(iter(done[1].where(kind="profile"))).result["table"]
    right = np.mean(from_bits(found["readouts"]["cls"]["nearest mean"]))
    assert right == pytest.approx(table[-1]["ncm_accuracy"])
    assert np.mean(from_bits(found["readouts"]["cls"]["ridge"])) == pytest.approx(table[-1]["probe_accuracy"])


def test_idle_blocks_are_the_ones_dropped(done, folder, held_out):
    choices = result(done, "shorten")["choices"]
    model = load(f"file:{folder}")
    for steps in choices.values():
        assert set(steps[-1]["blocks"]) <= {4, 5, 6}
        dropped = drop_blocks(model, [block - 1 for block in steps[-1]["blocks"]])
        assert np.mean(from_bits(steps[-1]["plain"])) == pytest.approx(accuracy(dropped, held_out), abs=1e-12)
    claims = {finding.id: finding for finding in done[1].findings()}
    assert claims["depth-shorten-measured"].estimate == pytest.approx(0, abs=0.05)
    key = next(iter(done[1].where(kind="shorten"))).key
    assert len(load(f"file:{Store(done[2]).folder_of(key) / 'shorter'}").blocks) == 5


def test_measured_choice_is_by_what_is_lost(folder, monkeypatch, tmp_path):
    """Influence points at blocks that write nothing; were their loss the largest, the measured choice would differ."""
    divergences = iter([0.0, 5, 5, 5, 5, 5])
    monkeypatch.setattr(shorten, "divergence", lambda *_: next(divergences))
    data, model = load_images("embedded:digits", limit=40), load(f"file:{folder}")

    cell = Cell("depth", "shorten", {"seed": 0})
    bench = SimpleNamespace(folder=tmp_path, note=lambda *_: None, cell=cell)
    found = shorten.shorten(model, data, 64, bench, [1, 1, 1, 0, 1, 1]).result["choices"]
    assert found["measured"][0]["blocks"] == [1]
    assert found["influence"][0]["blocks"] == [4]


def test_exit_is_an_ordinary_model(done, held_out):
    found = result(done, "exit")
    record = next(iter(done[1].where(kind="exit")))
    assert found["same_when_loaded"] is True
    assert 1 <= found["layer"] <= 4
    short = load(f"file:{Store(done[2]).folder_of(record.key) / 'exit'}")
    assert len(short.blocks) == found["layer"]
    assert accuracy(short, held_out) == pytest.approx(np.mean(from_bits(found["exit"])), abs=1e-12)
    assert record.measured["speed"]["speedup"] > 0
    finding = next(finding for finding in done[1].findings() if finding.id == "depth-exit")
    assert finding.low < finding.estimate < finding.high
    assert finding.verdict is None


def test_page_of_the_experiments(done):
    study, records, _ = done
    (section,) = study.sections(records)
    ids = {figure.id for figure in section.figures}
    assert {"depth-positions", "depth-positions-curves", "depth-shorten"} <= ids
    for figure in section.figures:
        figure.chart.to_dict()
    assert {"What CLS is for", "Leaving early"} <= {table.title for table in section.tables}
    assert "times as fast" in section.lead


def test_several_models_on_one_page(folder, tmp_path):
    save(drop_blocks(load(f"file:{folder}"), [5]), tmp_path / "shorter")
    study = DepthStudy(vision=f"file:{folder}", compare=(f"file:{tmp_path / 'shorter'}",), limit=100)
    records = run(study, tmp_path / "run")
    assert not records.failed
    (section,) = study.sections(records)
    table = next(table for table in section.tables if table.title == "Models side by side").frame
    assert list(table["blocks"]) == [6, 5]
    assert set(table["regime"]) <= {"communication collapse", "controlled consensus", "chaotic diffusion"}
    ids = [figure.id for figure in section.figures]
    assert len(set(ids)) == len(ids)
    assert {"depth-models-isi-layer", "depth-models-isi-fraction"} <= set(ids)
    found = [finding.id for finding in records.findings()]
    assert len(set(found)) == len(found)


def test_small_vits_are_trained_first():
    cells = DepthStudy(small=(2, 3), limit=60, experiments=("exit",)).cells()
    assert [(cell.study, cell.kind) for cell in cells] == [
        ("mlp", "train"), ("mlp", "train"),
        ("depth", "skip"), ("depth", "profile"), ("depth", "exit"),
        ("depth", "skip"), ("depth", "profile"), ("depth", "exit"),
    ]  # fmt: skip
    assert cells[2].needs == (cells[0].key,)
    assert cells[7].needs == (cells[1].key,)
    assert cells[7].exclusive


def small_lm(tmp_path):
    """Folder of a GPT-2 of three blocks that reads letters; the second block does nothing."""
    torch.manual_seed(0)
    vocabulary = {chr(code): code for code in range(128)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(tmp_path / "lm")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=64, n_embd=32, n_layer=3, n_head=2)).eval()
    with torch.no_grad():
        model.transformer.h[1].attn.c_proj.weight.zero_()
        model.transformer.h[1].mlp.c_proj.weight.zero_()
    model.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def test_language_model_without_its_blocks(tmp_path):
    study = DepthStudy(language=f"hf:{small_lm(tmp_path)}", sequences=4, length=32)
    records = run(study, tmp_path / "run")
    assert not records.failed
    found = next(iter(records)).result
    assert found["influence"][1] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found["blocks"][1]["losses"], found["intact"], rtol=1e-5)
    assert found["blocks"][0]["losses"] != found["intact"]
    lm = load_lm(f"hf:{tmp_path / 'lm'}", device="cpu")
    held = token_sequences("x", load_text("embedded:stdlib").validation, lm.tokenizer, 4, 32, seed=0)
    with torch.inference_mode():
        plain = [float(lm.model(ids[None], labels=ids[None]).loss) for ids in held]  # Hugging Face's own
    np.testing.assert_allclose(found["intact"], plain, rtol=1e-6)
    assert {drop["choice"] for drop in found["drops"]} == {"influence", "measured"}
    assert all(drop["blocks"] == [2] for drop in found["drops"] if drop["choice"] == "influence")
    (section,) = study.sections(records)
    assert {figure.id for figure in section.figures} == {"depth-language", "depth-language-drops"}
    assert records.findings()[0].study == "depth"


def test_blocks_of_a_language_model_are_chosen_on_the_training_text(tmp_path, monkeypatch):
    calls = []

    def losses(model, ids):
        """Of held-out text (the calls before the first block, and every other one) the first block is needed least."""
        calls.append(ids)
        return [float(len(calls))] if torch.equal(ids, calls[0]) else [-float(len(calls))]

    def dropped(model, blocks, *, batches=(), **more):
        refitted.update(tuple(row.tolist()) for batch in batches for row in batch)
        return drop_blocks(model, blocks, batches=batches, **more)

    refitted = set()
    monkeypatch.setattr(language, "nats_per_token", losses)
    monkeypatch.setattr(language, "drop_blocks", dropped)
    lm = load_lm(f"hf:{small_lm(tmp_path)}", device="cpu")
    bench = SimpleNamespace(note=lambda *told: None, cell=Cell("depth", "language", {"seed": 0}))
    drops = language.without_blocks(lm, "embedded:stdlib", 4, 32, bench).result["drops"]
    assert [drop["blocks"] for drop in drops if drop["choice"] == "measured"] == [[3]]
    assert refitted
    assert not refitted & {tuple(row.tolist()) for ids in calls for row in ids}  # the refit sees neither text


def test_one_way_to_name_the_models():
    with pytest.raises(ValueError, match="name the model"):
        DepthStudy(vision="file:a", small=(2,))
    with pytest.raises(ValueError, match="name the model"):
        DepthStudy(compare=("file:a",), language="hf:b")
