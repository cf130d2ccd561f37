"""A language model of one's own: cut, refitted, judged on text it was not refitted on."""

import numpy as np
import pytest
import torch

import deadweight as dw
from deadweight.errors import SourceError
from deadweight.evaluation import token_sequences
from deadweight.lab import Cell, Record, Records, Store, run_cells
from deadweight.studies.mlp import cut_language
from deadweight.studies.mlp.study import MlpStudy

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def run(language_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CALIBRATION", 12), ("JUDGED", 6), ("LENGTH", 64)):
            patch.setattr(cut_language, name, value)
        study = MlpStudy(language=f"hf:{language_folder}")
        cells = study.cells()
        store = Store(tmp_path_factory.mktemp("run"))
        run_cells(cells, study.run, store)
        records = [store.record(cell) for cell in cells]
    assert None not in records, [path.read_text() for path in store.folder.rglob("attempts/*.json")]
    return study, Records(records)


def test_the_loss_is_what_transformers_says(run, language_folder):
    """Each sequence's loss, from the labels that the model itself shifts."""
    _, (record,) = run
    assert record.cell.kind == "cut-language"
    lm = dw.load_lm(f"hf:{language_folder}", device="cpu")
    judged = token_sequences(
        "x", dw.load_text("embedded:stdlib").validation, lm.tokenizer, record.cell.params["judged"], 64
    )
    with torch.inference_mode():
        expected = [float(lm.model(row[None], labels=row[None]).loss) for row in judged]
    np.testing.assert_allclose(record.result["intact"]["losses"], expected, rtol=1e-5)
    assert set(record.result["cuts"]) == {"shallow", "grouped"}
    assert record.result["cuts"]["grouped"]["unique_mlps"] == 1
    assert record.result["cuts"]["shallow"]["parameters"] < record.result["intact"]["parameters"]


def test_findings_and_page(run):
    study, records = run
    findings = study.judge(records)
    assert [finding.id for finding in findings] == ["mlp-cut-language-shallow", "mlp-cut-language-grouped"]
    assert all(finding.verdict for finding in findings)
    (section,) = study.sections(records)
    assert list(section.tables[0].frame["model"]) == ["intact", "shallow", "grouped"]
    assert "was cut, refitted" in section.lead


@pytest.mark.parametrize(
    ("change", "verdict"), [(0.0, "dead weight"), (0.3, "needed")], ids=["nothing lost", "a tenth lost"]
)
def test_the_verdict_is_about_a_share_of_the_loss(change, verdict):
    losses = [3.0 + 0.001 * number for number in range(200)]
    part = {"parameters": 100, "unique_mlps": 2, "macs": 1}
    after = [loss + change + 0.001 * (-1) ** number for number, loss in enumerate(losses)]
    result = {
        "n": 200, "calibration": 1, "intact": {**part, "losses": losses},
        "cuts": {"shallow": {**part, "parameters": 80, "losses": after}},
    }  # fmt: skip
    record = Record(Cell("mlp", "cut-language", {"language": "x", "text": "y"}), result, {}, {})
    (finding,) = MlpStudy().judge(Records([record]))
    assert finding.verdict == verdict
    assert finding.estimate == pytest.approx(change / np.mean(losses), abs=1e-9)
    assert "removes 20% of the language model's parameters" in finding.claim


def test_sources_are_checked_when_it_is_planned(language_folder):
    with pytest.raises(SourceError, match="no such folder"):
        MlpStudy(language="hf:/nowhere/at/all").cells()
    with pytest.raises(SourceError, match="text source"):
        MlpStudy(language=f"hf:{language_folder}", text="embedded:stdlibs").cells()
