import json
import math
import shlex

import numpy as np
import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deadweight.errors import InputError, SourceError
from deadweight.lab import Cell, Record, Records
from deadweight.loading import load_lm
from deadweight.prompting import load_task, score_labels, split_items
from deadweight.prompting.embedded_tasks import ASKING
from deadweight.prompting.frames import frame_prompts
from deadweight.prompting.public_tasks import PUBLIC
from deadweight.statistics import two_way_mean
from deadweight.studies.audit import AuditStudy
from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.run import load_study, retell, run
from deadweight.studies.icl.answers import decoding_table, decomposition_table
from deadweight.studies.icl.arithmetic import arithmetic_table, item_table
from deadweight.studies.icl.checks import demonstration_seed
from deadweight.studies.icl.override import FOLLOWED, SHAKEN, SHUNNED, UNSHOWN
from deadweight.studies.icl.runs import asked_tasks, read_as
from deadweight.studies.icl.study import IclStudy, run_icl
from deadweight.studies.mlp.study import MlpStudy

pytestmark = pytest.mark.slow

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


STUDY = IclStudy(language="hf:toy", tasks="embedded:topic")


def judged(records):
    """All findings by their ids without study and task, those that only tables show as well."""
    pairs = [pair for _, settled in STUDY.settled(records) for pair in settled]
    return {pair.finding.id.removeprefix("icl-toy-"): pair.finding for pair in pairs}


def table_of(records, title):
    (section,) = STUDY.sections(records)
    return next(table.frame for table in section.tables if table.title == title)


GOLD = np.arange(60) % 2
RIGHT, WRONG = GOLD, 1 - GOLD


def frames(zero, natural, inverted, random):
    return {("zero-shot", 0): zero, ("natural", 4): natural, ("inverted", 4): inverted, ("random", 4): random}


def test_losses_are_told_with_their_sign():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    found = judged(Records([record(seed, GOLD, frames(half, RIGHT, WRONG, RIGHT)) for seed in (0, 1, 2)]))
    gone = found["demonstrations"]
    assert gone.estimate == pytest.approx(0.5)
    assert gone.low > 0.3
    assert "costs 50 points" in gone.claim
    same = found["labels"]
    assert same.estimate == 0
    assert same.low < 0 < same.high
    assert same.n == 60
    assert "leaves accuracy as it is" in same.claim


def test_override_counts_items_whose_prior_is_right():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    moved = np.where(np.arange(60) < 12, WRONG, RIGHT)
    found = judged(Records([record(seed, GOLD, frames(half, RIGHT, moved, RIGHT)) for seed in range(3)]))
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


def test_no_override_at_all_has_an_exact_end():
    found = judged(Records([record(0, GOLD, frames(RIGHT, RIGHT, RIGHT, RIGHT))]))
    assert (found["override"].low, found["override"].high) == (0, pytest.approx(1 - 0.025 ** (1 / 60), abs=0.002))


def test_sets_that_disagree_widen_the_interval():
    quarter, half = (np.where(np.arange(60) % each, RIGHT, WRONG) for each in (4, 2))
    alike = judged(Records([record(s, GOLD, frames(RIGHT, RIGHT, RIGHT, quarter)) for s in range(3)]))["labels"]
    apart = judged(Records([record(s, GOLD, frames(RIGHT, RIGHT, RIGHT, random))
                            for s, random in enumerate((RIGHT, quarter, half))]))["labels"]  # fmt: skip
    assert alike.estimate == apart.estimate == pytest.approx(0.25)
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)
    assert alike.p < 0.05 < apart.p
    assert max(apart.sources, key=lambda source: source.half).name == "sets of demonstrations"


def test_two_sets_of_demonstrations_settle_nothing():
    none = np.where(np.arange(60) % 4, RIGHT, WRONG)
    found = judged(Records([record(s, GOLD, frames(RIGHT, RIGHT, RIGHT, none)) for s in (0, 1)]))["labels"]
    assert (found.verdict, found.level) == ("undecided", 0)
    assert "range of 2" in found.label


def test_a_grid_of_two_hundred_findings_can_still_be_settled():
    """Where every set and item says the same, p must be able to clear Holm's correction."""
    gold = np.arange(359) % 2
    rows = [
        record(seed, gold, frames(1 - gold, gold, 1 - gold, gold), task=f"t{number}")
        for number in range(64) for seed in range(5)
    ]  # fmt: skip
    found = [f for f in STUDY.judge(Records(rows)) if f.id.endswith("-demonstrations")]
    assert len(found) == 64
    assert {finding.verdict for finding in found} == {"needed"}


def test_one_label_whatever_is_asked_takes_up_no_meaning():
    """Classes 75/25, and a model whose demonstrations make it say one label: it agrees with φ(y*) on 75 %."""
    gold = (np.arange(120) % 4 == 0).astype(int)  # 75 % of class 0, whose φ is class 1
    always = np.ones(120, dtype=int)
    rows = [record(seed, gold, frames(gold, gold, always, gold)) for seed in range(3)]
    claim = judged(Records(rows))["excess-override"].claim
    assert FOLLOWED not in claim
    assert SHAKEN in claim


def test_the_section_survives_what_is_undefined():
    records = Records([record(0, [0] * 6, frames([0] * 6, [0] * 6, [1] * 6, [0] * 6))])
    (section,) = STUDY.sections(records)
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
    assert not STUDY.judge(records)
    (section,) = STUDY.sections(records)
    table = section.tables[0].frame
    assert (table["invalid"] == 1).all()
    assert table["truth alignment"].isna().all()
    assert "nan" not in section.lead
    assert "No reply was one of the labels" in section.lead


@pytest.mark.parametrize("labels", [("a", "b", "c")])
def test_the_two_label_remark_is_for_two_labels(labels):
    gold = np.arange(12) % 3
    records = Records([record(0, gold, frames(gold, gold, gold, gold), labels)])
    assert "two labels" not in STUDY.sections(records)[0].tables[0].caption
    assert "two labels" not in judged(records)["excess-override"].claim


def test_no_records_no_section():
    assert STUDY.sections(Records([])) == []


def test_gains_are_repaired_less_broken():
    half = np.where(np.arange(60) < 30, RIGHT, WRONG)
    natural = np.where((np.arange(60) >= 10) & (np.arange(60) < 50), RIGHT, WRONG)  # breaks 10, repairs 20
    row = decomposition_table(asked_tasks(Records([record(0, GOLD, frames(half, natural, RIGHT, RIGHT))]))).iloc[0]
    told = {name: row[name] * 60 for name in ("kept", "repaired", "broken", "gain", "accuracy", "prior accuracy")}
    assert told == pytest.approx(
        {"kept": 20, "repaired": 20, "broken": 10, "gain": 10, "accuracy": 40, "prior accuracy": 30}
    )
    assert row["right answers that are the prior's"] == pytest.approx(0.5)


def test_demonstrations_are_dead_past_the_number_that_gains_nothing_more():
    gold = np.arange(1200) % 2
    half = np.where(np.arange(1200) < 600, gold, 1 - gold)
    answers = {("natural", 1): half, ("natural", 2): gold, ("natural", 4): gold, ("natural", 8): gold}
    records = Records([record(seed, gold, answers) for seed in range(3)])
    table = table_of(records, "Where demonstrations stop to matter").set_index("k")
    assert table["dead past here"].to_dict() == {1: "no", 2: "yes", 4: "yes"}
    assert "50 points" in table.loc[1, "gained by the largest k"]
    assert [finding.id for finding in STUDY.judge(records)] == ["icl-toy-last-demonstrations"]
    wide = IclStudy(language="hf:toy", tasks="embedded:topic", margin=0.6)  # the margin reaches the table
    (section,) = wide.sections(records)
    assert list(next(t.frame for t in section.tables if "stop to matter" in t.title)["dead past here"]) == ["yes"] * 3


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


@pytest.mark.parametrize(
    ("inverted", "random", "meaning"),
    [
        (np.where(np.arange(60) % 4 < 2, RIGHT, WRONG), RIGHT, SHAKEN),
        (WRONG, RIGHT, FOLLOWED),
        (RIGHT, WRONG, SHUNNED),
        (RIGHT, RIGHT, UNSHOWN),
    ],
    ids=["doubt alone moves half", "all follow", "none follows", "nothing moves"],
)
def test_unsettled_is_not_overridden(inverted, random, meaning):
    records = Records([record(seed, GOLD, frames(RIGHT, RIGHT, inverted, random)) for seed in range(3)])
    assert meaning in judged(records)["excess-override"].claim
    assert table_of(records, "Do inverted labels override meanings?").loc[0, "reading"] == meaning


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
    run, calibrated = (
        asked_tasks(records)[0].runs[0],
        asked_tasks([read_as(record, "calibrated") for record in records])[0].runs[0],
    )
    frame = records[0].result["frames"][1]
    assert run.answers["natural", 2].tolist() == frame["by_decoding"]["sum"]
    assert calibrated.answers["natural", 2].tolist() == frame["by_decoding"]["calibrated"]
    assert not calibrated.margins


@pytest.mark.parametrize("items", [12, 24, 100])
def test_one_item_that_changes_is_no_certainty(items):
    """One changed answer of few must not be called dead weight."""
    lost = np.zeros((items, 3))
    lost[0] = -1
    found = two_way_mean(lost, 0.01)
    assert found.value == pytest.approx(-1 / items)
    assert found.low < found.value < 0.01 < found.high
    assert found.p > 0.05


@pytest.mark.parametrize(
    "build",
    [
        lambda path: MlpStudy(vision=path, images=path).command,
        lambda path: DepthStudy(vision=path, images=path).command,
        lambda path: IclStudy(language=path, tasks=[path]).command,
        lambda path: AuditStudy(images=path, tasks=[path])._command("depth"),
    ],
    ids=["mlp", "depth", "icl", "audit"],
)
def test_a_hostile_path_stays_one_word_of_the_command(build):
    path = "folder:a b; rm -rf ~ $(id) 'c'"
    words = shlex.split(build(path))
    assert words[0] == "deadweight"
    assert words.count(path) == 2
