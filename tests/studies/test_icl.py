import json
import math
import shlex

import numpy as np
import pytest
import torch
import transformers
import yaml
from deadweight.studies.frame.run import load_study, retell, run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deadweight.errors import InputError, SourceError
from deadweight.lab import Cell, Record, Records
from deadweight.models import load_lm
from deadweight.prompting import load_task, score_labels, split_items
from deadweight.prompting.embedded_tasks import ASKING
from deadweight.prompting.frames import frame_prompts
from deadweight.prompting.public_tasks import PUBLIC
from deadweight.studies.audit import AuditStudy
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.icl import IclStudy, run_icl
from deadweight.studies.icl_checks import demonstration_seed
from deadweight.studies.icl_findings import icl_findings
from deadweight.studies.icl_override import FOLLOWED, SHAKEN, SHUNNED, override_table
from deadweight.studies.icl_page import icl_sections
from deadweight.studies.icl_rates import Sitting, by_task, difference, loss
from deadweight.studies.icl_tables import arithmetic_table, decoding_table, decomposition_table, item_table, sweep_table
from deadweight.studies.mlp.study import MlpStudy

LABELS = ("good", "bad")


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A tiny random Llama with a byte tokenizer, in a folder of its own."""
    folder = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"</s>": 0, **{letter: n + 1 for n, letter in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=600, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "r.csv"
    rows = [f"it was {'so' * (n % 5)} {n} {LABELS[n % 2]},{LABELS[n % 2]}" for n in range(24)]
    path.write_text("\n".join(["text,label", *rows]))
    return [f"csv:{path}"]


@pytest.fixture
def study(language, tasks):
    return IclStudy(language=language, tasks=tasks, k=(2, 4), seeds=(0, 1), limit=6, device="cpu")


def test_a_run_tells_findings_and_a_page(study, tmp_path):
    records = run(study, tmp_path / "one")
    assert not records.failed
    assert len(records) == 2
    assert {(f["condition"], f["k"]) for f in records[0].result["frames"]} == {
        ("zero-shot", 0), *((condition, k) for condition in ("natural", "inverted", "random") for k in (2, 4)),
    }  # fmt: skip
    assert (tmp_path / "one" / "report.html").is_file()
    kinds = {finding.id.split("csv", 1)[1].rsplit("-csv", 1)[-1] for finding in records.findings()}
    assert len(kinds) == len(records.findings()) == 4
    again = run(study, tmp_path / "two")
    assert [dict(one.result) for one in again] == [dict(one.result) for one in records]
    before = json.loads((tmp_path / "one" / "findings.json").read_text())
    retell(tmp_path / "one")
    assert json.loads((tmp_path / "one" / "findings.json").read_text()) == before


def test_the_recorded_scores_are_those_of_the_scorer(study, language, tasks):
    lm, task = load_lm(language, device="cpu"), load_task(tasks[0])
    (record,) = run_icl(lm, task, k=(2,), seeds=[1], limit=4, conditions=["inverted"])
    prompts = frame_prompts(task, split_items(task, 0, 4), "inverted", 2, demonstration_seed(0, 1)).prompts
    expected = score_labels(lm, prompts, [" bad", " good"])
    frame = record.result["frames"][0]
    np.testing.assert_allclose(frame["log_probs"], expected, atol=1e-4)
    assert frame["predicted"] == expected.argmax(1).tolist()
    assert all(text == str(round(float(text), 6)) for row in frame["log_probs"] for text in map(str, row))


def test_run_icl_gives_records_with_findings(language, tasks):
    records = run_icl(load_lm(language, device="cpu"), load_task(tasks[0]), k=(2,), seeds=2, limit=4)
    assert len(records) == 2
    assert len(records.findings()) == 4
    assert {"accuracy zero-shot", "accuracy natural k=2"} <= set(records.table().columns)


def test_a_limit_or_another_seed_number_keeps_the_answers(language, tasks):
    lm, task = load_lm(language, device="cpu"), load_task(tasks[0])
    few, more = (run_icl(lm, task, k=(2,), seeds=1, limit=limit, conditions=["random"])[0] for limit in (2, 6))
    np.testing.assert_allclose(
        few.result["frames"][0]["log_probs"], more.result["frames"][0]["log_probs"][:2], atol=1e-4
    )


def record(seed, gold, frames, labels=LABELS, task="toy"):
    """A record as the study writes it, from predictions by (condition, k)."""
    shown = [{"condition": c, "k": k, "predicted": list(p)} for (c, k), p in frames.items()]
    size = len(labels)
    return Record(
        Cell("icl", "answers", {"task": task, "seed": seed}),
        {"task": task, "labels": list(labels), "phi": [(at + 1) % size for at in range(size)],
         "items": [f"i{at}" for at in range(len(gold))], "gold": list(gold), "frames": shown},
        {}, {},
    )  # fmt: skip


def judged(records):
    return {finding.id.removeprefix("icl-toy-"): finding for finding in icl_findings(records, 0.01, "cmd")}


GOLD = np.arange(60) % 2
RIGHT, WRONG = GOLD, 1 - GOLD


def frames(zero, natural, inverted, random):
    return {("zero-shot", 0): zero, ("natural", 4): natural, ("inverted", 4): inverted, ("random", 4): random}


def test_losses_are_told_with_their_sign():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    found = judged(Records([record(seed, GOLD, frames(half, RIGHT, WRONG, RIGHT)) for seed in (0, 1)]))
    gone = found["demonstrations"]
    assert gone.estimate == pytest.approx(0.5)
    assert gone.low > 0.3
    assert "costs 50 points" in gone.claim
    same = found["labels"]
    assert same.estimate == 0
    assert same.low < 0 < same.high
    assert same.n == 60
    assert "does not change accuracy" in same.claim


def test_override_counts_items_whose_prior_is_right():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    moved = np.where(np.arange(60) < 12, WRONG, RIGHT)
    found = judged(Records([record(0, GOLD, frames(half, RIGHT, moved, RIGHT))]))
    override = found["override"]
    assert override.n == 30
    assert override.estimate == pytest.approx(12 / 30)
    assert override.margin is None
    assert override.low < 0.4 < override.high
    assert "move 40%" in override.claim
    assert "random labels move 0%" in override.claim
    beyond = found["excess-override"]
    assert beyond.estimate == pytest.approx(12 / 60)
    assert SHAKEN in beyond.claim  # 20 % of two labels is less than a coin would follow
    assert "With two labels" in beyond.claim


def test_no_override_at_all_has_the_rule_of_three():
    found = judged(Records([record(0, GOLD, frames(RIGHT, RIGHT, RIGHT, RIGHT))]))
    assert (found["override"].low, found["override"].high) == (0, pytest.approx(3 / 60))


def test_sets_that_disagree_widen_the_interval():
    alike = judged(Records([record(s, GOLD, frames(RIGHT, RIGHT, RIGHT, np.where(np.arange(60) % 4, RIGHT, WRONG)))
                            for s in (0, 1)]))["labels"]  # fmt: skip
    apart = judged(Records([record(0, GOLD, frames(RIGHT, RIGHT, RIGHT, RIGHT)),
                            record(1, GOLD, frames(RIGHT, RIGHT, RIGHT, np.where(np.arange(60) % 2, RIGHT, WRONG)))]))[
        "labels"
    ]  # fmt: skip
    assert alike.estimate == apart.estimate == pytest.approx(0.25)
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)
    assert alike.p < 0.05 < apart.p


def test_the_section_survives_what_is_undefined():
    records = Records([record(0, [0] * 6, frames([0] * 6, [0] * 6, [1] * 6, [0] * 6))])
    (section,) = icl_sections(records)
    table = section.tables[0].frame
    inverted = table[table["condition"] == "inverted"].iloc[0]
    assert inverted["joint rate"] == 0
    assert "zero by construction" in section.tables[0].caption
    assert "1 − accuracy" in section.tables[0].caption
    assert inverted["prompt alignment"] == 1
    assert math.isnan(inverted["κ with φ(y*)"])  # everything is one class on both sides


def test_a_model_that_never_writes_a_label_is_told_of_all_the_same():
    none = [-1] * 12
    records = Records([record(seed, [0, 1] * 6, frames(none, none, none, none)) for seed in (0, 1)])
    assert icl_findings(records, 0.01, "cmd") == []
    (section,) = icl_sections(records)
    table = section.tables[0].frame
    assert (table["invalid"] == 1).all()
    assert table["truth alignment"].isna().all()
    assert "nan" not in section.lead
    assert "No reply was one of the labels" in section.lead


@pytest.mark.parametrize("labels", [("a", "b", "c")])
def test_the_two_label_remark_is_for_two_labels(labels):
    gold = np.arange(12) % 3
    records = Records([record(0, gold, frames(gold, gold, gold, gold), labels)])
    assert "two labels" not in icl_sections(records)[0].tables[0].caption
    assert "two labels" not in judged(records)["excess-override"].claim


def test_no_records_no_section():
    assert icl_sections(Records([])) == []


def test_gains_are_repaired_less_broken():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    natural = np.where((np.arange(60) >= 10) & (np.arange(60) < 50), RIGHT, WRONG)  # breaks 10, repairs 20
    row = decomposition_table(by_task(Records([record(0, GOLD, frames(half, natural, RIGHT, RIGHT))]))).iloc[0]
    told = {name: row[name] * 60 for name in ("kept", "repaired", "broken", "gain", "accuracy", "prior accuracy")}
    assert told == pytest.approx(
        {"kept": 20, "repaired": 20, "broken": 10, "gain": 10, "accuracy": 40, "prior accuracy": 30}
    )
    assert row["right answers that are the prior's"] == pytest.approx(0.5)


def test_demonstrations_are_dead_past_the_number_that_gains_nothing_more():
    gold = np.arange(600) % 2
    half = np.where(np.arange(600) < 300, gold, 1 - gold)
    answers = {("zero-shot", 0): half, ("natural", 2): gold, ("natural", 4): gold, ("natural", 8): gold}
    table = sweep_table(by_task(Records([record(seed, gold, answers) for seed in (0, 1)]))).set_index("k")
    assert table["dead past here"].to_dict() == {0: "no", 2: "yes", 4: "yes"}
    assert table.loc[0, "most gained by a larger k"] == pytest.approx(0.5)


def test_the_arithmetic_alone_moves_answers(study, language, tasks):
    both = IclStudy(**{**study.model_dump(), "compare_dtype": "bfloat16", "seeds": (0,), "k": (2,)})
    records = Records([Record(cell, dict(both.run(cell, Quiet()).result), {}, {}) for cell in both.cells()])
    assert [one.cell.params["dtype"] for one in records] == ["float32", "bfloat16"]
    (row,) = arithmetic_table(records).to_dict("records")
    left, right = (np.asarray(one.result["frames"][1]["log_probs"]) for one in records)
    assert row["largest shift of a log-probability"] >= np.abs(left - right).max() > 0
    assert 0 <= row["answers that change"] <= row["answers that lead by less"] <= 1
    assert len(decoding_table(records)) == 4
    assert arithmetic_table(Records(records[:1])).empty


class Quiet:
    """A bench that nobody watches."""

    device = "cpu"

    def note(self, text):
        pass


REFUSED = {
    "more demonstrations than items": ({"k": (50,)}, "at most"),
    "an unknown condition": ({"conditions": ("naturel",)}, "zero-shot"),
    "the same task twice": ({"tasks": ("embedded:topic",) * 2}, "each task once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_a_model_is_loaded(study, case):
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        IclStudy(**{**study.model_dump(), **options}).cells()


def test_a_missing_file_is_refused(study):
    with pytest.raises(SourceError, match="no such file"):
        IclStudy(**{**study.model_dump(), "tasks": ("csv:nowhere.csv",)}).cells()


def test_keys_follow_the_content_of_the_sources(study, language):
    before = [cell.key for cell in study.cells()]
    assert before == [cell.key for cell in study.cells()]
    assert len(set(before)) == 2
    other = IclStudy(**{**study.model_dump(), "seed": 1})
    assert not set(before) & {cell.key for cell in other.cells()}


def test_one_value_needs_no_list(language):
    study = IclStudy(language=language, tasks="embedded:topic", k=2, conditions="natural")
    assert (study.tasks, study.k, study.conditions) == (("embedded:topic",), (2,), ("natural",))


def test_the_packaged_study_asks_all_embedded_tasks():
    study = load_study("mini-2511.21038")
    assert isinstance(study, IclStudy)
    assert sorted(load_task(source).name for source in study.tasks) == sorted(ASKING)
    assert yaml.safe_dump(study.model_dump(mode="json"))


def test_the_papers_study_is_eight_models_on_eight_declared_tasks():
    study = load_study("paper-2511.21038")
    assert isinstance(study, IclStudy)
    assert len(study.language) == len(study.tasks) == 8
    assert len(study.seeds) == 5
    assert 8 in study.k
    assert {source.removeprefix("hf:") for source in study.tasks} <= set(PUBLIC)
    assert all(source.split(":")[1].split("/")[0] in {"meta-llama", "mistralai", "Qwen", "google"}
               for source in study.language)  # fmt: skip


def test_unsettled_is_not_overridden():
    """With two labels, doubt alone moves answers to φ(y*): half of them at most counts as chance."""
    coin = np.where(np.arange(60) % 4 < 2, RIGHT, WRONG)
    shaken = judged(Records([record(0, GOLD, frames(RIGHT, RIGHT, coin, RIGHT))]))["excess-override"]
    assert shaken.low > 0.3
    assert "no more often than chance" in shaken.claim
    table = override_table(by_task(Records([record(0, GOLD, frames(RIGHT, RIGHT, coin, RIGHT))])))
    assert table.loc[0, "φ(y*) given"] == table.loc[0, "chance"] == 0.5
    assert table.loc[0, "reading"] == SHAKEN
    assert override_table(by_task(Records([record(0, GOLD, frames(RIGHT, RIGHT, WRONG, RIGHT))]))).loc[
        0, "reading"
    ] == FOLLOWED  # fmt: skip
    assert override_table(by_task(Records([record(0, GOLD, frames(RIGHT, RIGHT, RIGHT, WRONG))]))).loc[
        0, "reading"
    ] == SHUNNED  # fmt: skip


def test_every_answer_can_be_read_one_by_one(language, tasks):
    lm, task = load_lm(language, device="cpu"), load_task(tasks[0])
    records = run_icl(lm, task, k=(2,), seeds=2, limit=4, conditions=["zero-shot", "natural"])
    table = item_table(records, task)
    assert len(table) == 4 * 2 * 2
    assert set(table["answer"]) <= set(LABELS)
    right = (table["answer"] == table["label"]).groupby([table["seed"], table["condition"]]).mean()
    assert right[0, "natural"] == records[0].result["accuracy natural k=2"]
    assert all(label in question for label, question in zip(table["label"], table["question"], strict=True))
    zero = table[table["condition"] == "zero-shot"]
    assert (zero["answer"] == zero["prior"]).all()
    assert (table["lead"] >= 0).all()
    assert "question" not in item_table(records)
    ((sitting, _),), ((calibrated, _),) = by_task(records).values(), by_task(records, "calibrated").values()
    frame = records[0].result["frames"][1]
    assert sitting.answers["natural", 2].tolist() == frame["by_decoding"]["sum"]
    assert calibrated.answers["natural", 2].tolist() == frame["by_decoding"]["calibrated"]
    assert not calibrated.margins


@pytest.mark.parametrize("items", [12, 24, 100])
def test_one_item_that_changes_is_no_certainty(items):
    """A bootstrap alone ends exactly at 0 here, so that a single changed answer would be called dead weight."""
    right = np.zeros(items, dtype=np.int64)
    wrong = right.copy()
    wrong[0] = 1
    names = tuple(str(number) for number in range(items))
    answers = {("natural", 8): wrong, ("zero-shot", 0): right}
    sitting = Sitting("t", 0, "k", ("a", "b"), names, right, np.array([1, 0]), answers)
    found = difference([sitting], loss(("natural", 8), ("zero-shot", 0)), 0.01)
    assert found.value == pytest.approx(-1 / items)
    assert found.low < found.value < 0.01 < found.high
    assert found.p > 0.05


@pytest.mark.parametrize(
    "build",
    [
        lambda path: MlpStudy(vision=path, images=path)._command,
        lambda path: DepthStudy(vision=path, images=path)._command,
        lambda path: IclStudy(language=path, tasks=[path]).command,
        lambda path: AuditStudy(vision=path, tasks=[path])._command("icl"),
    ],
    ids=["mlp", "depth", "icl", "audit"],
)
def test_a_hostile_path_stays_one_word_of_the_command(build):
    path = "folder:a b; rm -rf ~ $(id) 'c'"
    words = shlex.split(build(path))
    assert words[0] == "deadweight"
    assert words.count(path) == 2
