import dataclasses
import json

import pytest
import scipy.stats

from deadweight.errors import InputError
from deadweight.lab import Records, Store
from deadweight.report import write_page
from deadweight.studies.attention.study import EIGHT, AttentionStudy
from deadweight.studies.frame.run import load_study, run

pytestmark = pytest.mark.slow

TINY = {
    "steps": 3, "batch": 2, "length": 48, "dim": 32, "depth": 1, "heads": 4, "seeds": (0,), "limit": 4,
    "timing_lengths": (16, 80), "timing_dim": 32, "rounds": 3, "metered_rounds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run(AttentionStudy(**TINY), tmp_path_factory.mktemp("attention"))


def test_every_mechanism_is_trained_and_timed(records):
    assert not records.failed
    assert [r.cell.params["mechanism"] for r in records.where(kind="train")] == list(EIGHT)
    timed = [(r.cell.params["subject"], r.cell.params["length"]) for r in records.where(kind="time")]
    assert timed == [("model", 48), ("layer", 16), ("layer", 80)]
    for record in records.where(kind="time", subject="layer"):
        assert record.cell.params["mechanisms"]["gqa"] == {"groups": 2}
        assert record.measured["failed"] == {}
        assert list(record.measured["mechanisms"]) == list(EIGHT)
        assert record.context["kernels"]["flash"] == "sdpa:flash"
        assert record.measured["peak_flops"] > 1e8
        for found in record.measured["mechanisms"].values():
            assert found["seconds"]["low"] <= found["seconds"]["value"] <= found["seconds"]["high"]
            assert len(found["rounds"]) == 3
            assert found["decode_seconds"]["value"] > 0
            assert found["prefill_seconds"]["value"] > 0
            assert found["peak_bytes"] >= 0
            assert found["metered"]["times"] >= 1
            assert found["metered"]["cores_busy"] > 0
            assert [len(pair) for pair in found["meter_cost"]["pairs"]] == [2]
            assert found["tokens_per_second"] == record.cell.params["length"] / found["seconds"]["value"]
            assert found["mfu"] == pytest.approx(
                found["flops_necessary"] / found["seconds"]["value"] / record.measured["peak_flops"]
            )


def test_the_same_function_computed_in_three_ways_learns_the_same(records):
    losses = {r.cell.params["mechanism"]: r.result["losses"] for r in records.where(kind="train")}
    assert losses["eager"] == pytest.approx(losses["sdpa"], abs=1e-4)
    assert losses["flash"] == pytest.approx(losses["sdpa"], abs=1e-4)
    assert losses["linear"] != pytest.approx(losses["sdpa"], abs=1e-6)
    assert {len(values) for values in losses.values()} == {3}


def test_results_are_bit_for_bit_the_same_again_and_hold_no_times(records, tmp_path):
    some = ("sdpa", "lsh", "mla")
    again = run(AttentionStudy(**{**TINY, "mechanisms": some}), tmp_path)
    for name in some:
        (one,), (two,) = (found.where(kind="train", mechanism=name) for found in (records, again))
        assert one.result == two.result
        for one, two in zip(records.where(kind="time"), again.where(kind="time"), strict=True):
            assert one.result["mechanisms"][name] == two.result["mechanisms"][name]
    for record in records.where(kind="time", subject="layer"):
        facts = record.result["mechanisms"]["sdpa"]
        assert set(facts) == {
            "parameters", "bytes_on_disk", "macs_linear", "macs_necessary", "macs_executed", "macs_counted",
            "cache_bytes", "cache_bytes_per_token", "macs_without_gradient", "macs_training_step",
        }  # fmt: skip
        assert facts["macs_linear"] == 4 * 32 * 32 * record.cell.params["length"]
        assert facts["cache_bytes"] == 2 * 4 * 32 * record.cell.params["length"]


def test_energy_is_a_reading_with_provenance_and_never_zero_for_missing(records):
    for record in records.where(kind="time"):
        for found in record.measured["mechanisms"].values():
            energy = found["metered"]["energy"]
            assert energy["provenance"] in {"measured", "integrated", "missing"}
            assert (energy["value"] is None) == (energy["provenance"] == "missing")
            assert energy["value"] != 0


def test_without_counters_energy_is_missing_in_records_findings_and_page_and_never_zero(tmp_path, monkeypatch):
    from deadweight.meters import NullEnergy
    from deadweight.studies.attention import costs as study_module

    absent = NullEnergy("cpu", "no counter in this test", "buy one")
    monkeypatch.setattr(study_module, "energy_devices", lambda: [absent])
    options = {"mechanisms": ("sdpa", "linear"), "timing_lengths": (16,), "paper": True, "carbon_intensity": 50.0}
    run(AttentionStudy(**{**TINY, **options}), tmp_path)

    readings = 0
    for path in tmp_path.rglob("record.json"):
        for reading in energies(json.loads(path.read_text())["measured"]):
            assert (reading["value"], reading["provenance"]) == (None, "missing")
            assert reading["reason"]
            readings += 1
    assert readings >= 2 * 2 * 4  # two races of two, with energy, above rest, power and a part each
    told = json.loads((tmp_path / "findings.json").read_text())["findings"]
    (energy,) = [finding for finding in told if finding["id"] == "attention-energy"]
    assert (energy["estimate"], energy["n"], energy["interval"]) == (None, 0, [None, None])
    assert "Energy was not measured: " in energy["claim"]
    assert "CO2" not in energy["claim"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What was not measured here" in page
    assert "Figure 8: energy" in page  # named among what could not be drawn
    assert page.count("missing") > 10


def energies(value):
    """Every reading in joules or watts inside a record."""
    if isinstance(value, dict):
        if value.get("unit") in ("J", "W", "J per token"):
            yield value
        for inner in value.values():
            yield from energies(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from energies(inner)


def test_findings_are_rankings_with_evidence(records):
    findings = {finding.id: finding for finding in records.findings()}
    assert {"attention-loss-ranking", "attention-time-fastest", "attention-cache", "attention-energy"} <= set(findings)
    assert {f"attention-loss-{name}" for name in ("gqa", "sliding_window", "linear", "lsh", "mla")} <= set(findings)
    assert not {"attention-loss-eager", "attention-loss-flash", "attention-loss-sdpa"} & set(findings)
    keys = {record.key for record in records}
    for finding in findings.values():
        assert finding.verdict is None  # one training run says nothing about others
        assert finding.evidence
        assert set(finding.evidence) <= keys
    cache = findings["attention-cache"]
    assert "linear attention" in cache.claim
    assert cache.estimate == pytest.approx(4 * 4 * 8 * 9 / (2 * 4 * 32 * 80))


def test_the_page_can_be_drawn_from_any_part_of_the_records(records, tmp_path):
    study = AttentionStudy(**TINY)
    for part in (records, records.where(kind="train"), records.where(kind="time"), records.where(kind="train", seed=0)):
        (section,) = study.sections(part)
        page = write_page(
            tmp_path / "page.html", title="t", subtitle="s", sections=[section], facts={}, skipped=[], failed=[],
            findings=[finding.as_json() for finding in study.judge(part)],
        )  # fmt: skip
        assert "linear" in page.read_text(encoding="utf-8")
    assert study.sections(records.where(kind="none")) == []
    assert not study.judge(records.where(kind="none"))


def with_losses(records, shifts):
    """Three seeds of sdpa and of linear, the latter's windows shifted by the shares given."""
    made = []
    for seed, shift in enumerate(shifts):
        for name in ("sdpa", "linear"):
            record = records.where(kind="train", mechanism=name)[0]
            base = records.where(kind="train", mechanism="sdpa")[0].result
            factor = 1 + shift if name == "linear" else 1
            windows = [loss * (1 + part / 100) for part in range(4) for loss in base["window_losses"]]
            result = {
                **record.result,
                "window_losses": [factor * loss for loss in windows],
                "held_out_loss": factor * sum(windows) / len(windows),
            }
            cell = dataclasses.replace(record.cell, params={**record.cell.params, "seed": seed})
            made.append(dataclasses.replace(record, cell=cell, result=result))
    return Records(made)


def test_the_interval_of_three_runs_is_about_other_runs_and_other_text(records):
    shifts = (-0.05, 0.05, 0.1)
    judged = AttentionStudy(**TINY).judge(with_losses(records, shifts))
    finding = next(finding for finding in judged if finding.id == "attention-loss-linear")
    theirs = scipy.stats.ttest_1samp(shifts, 0).confidence_interval(0.95)  # over the runs alone
    assert finding.low <= theirs.low
    assert finding.high >= theirs.high
    assert finding.estimate == pytest.approx(sum(shifts) / len(shifts))
    assert {source.name for source in finding.sources} == {"windows", "seeds"}
    assert finding.verdict is None  # a ranking: so few steps train nothing


def test_two_runs_are_only_a_range(records):
    judged = AttentionStudy(**TINY).judge(with_losses(records, (0.10, 0.11)))
    finding = next(finding for finding in judged if finding.id == "attention-loss-linear")
    assert finding.level == 0
    assert "range of 2 seeds" in finding.label


def test_the_best_of_eight_has_an_interval_that_knows_it_was_chosen(records):
    judged = AttentionStudy(**TINY).judge(records)
    for name in ("attention-loss-ranking", "attention-time-fastest", "attention-scaling"):
        finding = next(finding for finding in judged if finding.id == name)
        assert finding.level == 0 or "best of" in finding.label, name
    assert "range of 3 rounds" in next(f for f in judged if f.id == "attention-time-fastest").label


def test_a_failed_reference_leaves_the_findings_standing(records):
    record = records.where(kind="time")[-1]
    measured = {**record.measured, "mechanisms": {
        name: {**found, "ratio": None} for name, found in record.measured["mechanisms"].items() if name != "sdpa"
    }, "failed": {"sdpa": "no kernel"}}  # fmt: skip
    lame = Records([dataclasses.replace(record, measured=measured)])
    study = AttentionStudy(**TINY)
    assert {finding.id for finding in study.judge(lame)} == {"attention-cache", "attention-energy"}
    (section,) = study.sections(lame)
    titles = {table.title for table in section.tables}
    assert {"What could not run here", "What was not measured here"} <= titles


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mechanisms": ("sdpa", "flsh")}, "flash"),
        ({"heads": 5}, "heads 5 do not divide"),
        ({"mechanism_options": {"gqa": {"groups": 3}}}, "groups 3"),
        ({"mechanism_options": {"sdpa": {"causal": False}}}, "causal"),
        ({"mechanism_options": {"sdqa": {}}}, "sdpa"),
        ({"text": "text:/nowhere"}, "text:/nowhere"),
        ({"length": 10**8}, "length"),
    ],
    ids=["name", "heads", "groups", "two-sided", "options of nobody", "text", "length"],
)
def test_bad_options_are_refused_before_any_work(options, word):
    with pytest.raises(InputError, match=word):
        AttentionStudy(**{**TINY, **options}).cells()


@pytest.mark.parametrize("options", [{"mechanisms": ()}, {"seeds": (1, 1)}, {"timing_lengths": (0,)}, {"rounds": 1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AttentionStudy(**{**TINY, **options})


def test_keys_depend_on_what_results_depend_on():
    def keys(**options):
        return [cell.key for cell in AttentionStudy(**{**TINY, **options}).cells()]

    assert keys() == keys()
    assert not set(keys()[:8]) & set(keys(steps=4)[:8])
    assert keys(seed=1)[:8] == keys(seeds=(1,))[:8]
    wider = keys(mechanism_options={"sliding_window": {"window": 3}})
    same = [one == two for one, two in zip(keys(), wider, strict=True)]
    assert same == [*(name != "sliding_window" for name in EIGHT), False, False, False]


def test_only_timing_cells_ask_for_the_machine():
    cells = AttentionStudy(**TINY).cells()
    assert {cell.kind: cell.exclusive for cell in cells} == {"train": False, "time": True}


def test_the_packaged_study_and_the_audits_settings_are_the_eight():
    packaged = load_study("mini-2507.07247")
    assert isinstance(packaged, AttentionStudy)
    assert packaged.mechanisms == AttentionStudy.for_audit().mechanisms == EIGHT
    assert len(packaged.cells()) == 8 * 3 + 1 + 5


def test_a_cell_that_cannot_train_fails_alone(tmp_path, monkeypatch):
    from deadweight.attention.linear import Linear

    def broken(self, *args):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Linear, "attend", broken)
    options = {"mechanisms": ("sdpa", "linear"), "timing_lengths": (16,), "timed_model": False}
    records = run(AttentionStudy(**{**TINY, **options}), tmp_path)
    assert [failure.cell.params["mechanism"] for failure in records.failed] == ["linear"]
    assert len(list(Store(tmp_path).folder.rglob("record.json"))) == 2


def test_a_run_resumes_without_doing_a_cell_again(tmp_path):
    options = {"mechanisms": ("sdpa", "linear"), "timing_lengths": (16,), "timed_model": False}
    run(AttentionStudy(**{**TINY, **options}), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    run(AttentionStudy(**{**TINY, **options, "timing_lengths": (16, 32)}), tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
