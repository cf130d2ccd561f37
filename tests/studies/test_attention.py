import dataclasses

import pytest
import scipy.stats
import torch

from deadweight.attention import mechanism
from deadweight.errors import InputError
from deadweight.lab import Records, Store
from deadweight.report import write_page
from deadweight.studies import attention_findings as told
from deadweight.studies.attention import EIGHT, AttentionStudy
from deadweight.studies.attention_timing import median_interval, time_mechanisms
from deadweight.studies.running import load_study, run

TINY = {
    "steps": 3, "batch": 2, "length": 48, "dim": 32, "depth": 1, "heads": 4, "seeds": (0,), "limit": 4,
    "timing_lengths": (16, 80), "timing_dim": 32, "rounds": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run(AttentionStudy(**TINY), tmp_path_factory.mktemp("attention"))


def test_every_mechanism_is_trained_and_timed(records):
    assert not records.failed
    assert [r.cell.params["mechanism"] for r in records.where(kind="train")] == list(EIGHT)
    assert [r.cell.params["length"] for r in records.where(kind="time")] == [16, 80]
    for record in records.where(kind="time"):
        assert record.cell.params["mechanisms"]["gqa"] == {"groups": 2}
        assert record.measured["failed"] == {}
        assert list(record.measured["mechanisms"]) == list(EIGHT)
        for found in record.measured["mechanisms"].values():
            assert found["seconds"]["low"] <= found["seconds"]["value"] <= found["seconds"]["high"]
            assert len(found["rounds"]) == 3
            assert found["decode_seconds"]["value"] > 0


def test_the_same_function_computed_in_three_ways_learns_the_same(records):
    losses = {r.cell.params["mechanism"]: r.result["losses"] for r in records.where(kind="train")}
    assert losses["eager"] == pytest.approx(losses["sdpa"], abs=1e-4)
    assert losses["flash"] == pytest.approx(losses["sdpa"], abs=1e-4)
    assert losses["linear"] != pytest.approx(losses["sdpa"], abs=1e-6)
    assert {len(values) for values in losses.values()} == {3}


def test_results_are_bit_for_bit_the_same_again_and_hold_no_times(records, tmp_path):
    again = run(AttentionStudy(**TINY), tmp_path)
    assert [r.result for r in again] == [r.result for r in records]
    for record in records.where(kind="time"):
        facts = record.result["mechanisms"]["sdpa"]
        assert set(facts) == {
            "parameters", "macs_necessary", "macs_executed", "cache_bytes", "cache_bytes_a_token",
        }  # fmt: skip
        assert facts["cache_bytes"] == 2 * 4 * 32 * record.cell.params["length"]


def test_energy_is_a_reading_with_provenance_and_never_zero_for_missing(records):
    for record in records.where(kind="time"):
        for found in record.measured["mechanisms"].values():
            energy = found["metered"]["energy"]
            assert energy["provenance"] in {"measured", "integrated", "missing"}
            assert (energy["value"] is None) == (energy["provenance"] == "missing")
            assert energy["value"] != 0


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
            findings=[finding.as_json() for finding in study.findings(part)],
        )  # fmt: skip
        assert "linear" in page.read_text(encoding="utf-8")
    assert study.sections(records.where(kind="none")) == []
    assert study.findings(records.where(kind="none")) == []


def with_losses(records, shifts):
    """Three seeds of sdpa and of linear, the latter's windows shifted by the shares given."""
    made = []
    for seed, shift in enumerate(shifts):
        for name in ("sdpa", "linear"):
            record = records.where(kind="train", mechanism=name)[0]
            base = records.where(kind="train", mechanism="sdpa")[0].result
            factor = 1 + shift if name == "linear" else 1
            result = {
                **record.result,
                "window_losses": [factor * loss for loss in base["window_losses"]],
                "held_out_loss": factor * base["held_out_loss"],
            }
            cell = dataclasses.replace(record.cell, params={**record.cell.params, "seed": seed})
            made.append(dataclasses.replace(record, cell=cell, result=result))
    return Records(made)


@pytest.mark.parametrize("shifts", [(0.10, 0.11, 0.12), (-0.05, 0.05, 0.1)], ids=["alike", "apart"])
def test_the_interval_of_three_runs_is_students(records, shifts):
    judged = AttentionStudy(**TINY).judge(with_losses(records, shifts))
    finding = next(finding for finding in judged if finding.id == "attention-loss-linear")
    theirs = scipy.stats.ttest_1samp(shifts, 0).confidence_interval(0.95)
    assert (finding.low, finding.high) == pytest.approx((theirs.low, theirs.high))
    assert finding.estimate == pytest.approx(sum(shifts) / len(shifts))
    assert finding.verdict is None  # a ranking: so few steps train nothing
    assert "other than" not in finding.claim


def test_two_runs_say_nothing_about_others(records):
    judged = AttentionStudy(**TINY).judge(with_losses(records, (0.10, 0.11)))
    finding = next(finding for finding in judged if finding.id == "attention-loss-linear")
    assert "not other than these 2 training runs" in finding.claim


def test_a_mechanism_that_fails_is_told_and_the_others_go_on():
    class Broken(torch.nn.Module):
        kernel = "none"

        def __init__(self, sound):
            super().__init__()
            self.sound, self.calls = sound, 0

        def forward(self, x, cache=None):
            self.calls += 1
            if self.calls > 7:
                raise RuntimeError("out of memory, say")
            return self.sound(x, cache)

        def __getattr__(self, name):
            return super().__getattr__(name) if name in {"sound"} else getattr(super().__getattr__("sound"), name)

    layers = {name: mechanism(name, 16, 2) for name in ("sdpa", "eager", "linear")}
    layers["eager"] = Broken(layers["eager"])
    found = time_mechanisms(layers, torch.randn(1, 12, 16), 3, reference="sdpa").measured
    assert list(found["mechanisms"]) == ["sdpa", "linear"]
    assert found["failed"] == {"eager": "RuntimeError: out of memory, say"}
    assert found["mechanisms"]["sdpa"]["ratio"]["value"] == 1

    layers["sdpa"] = Broken(layers["sdpa"])
    layers["eager"] = mechanism("eager", 16, 2)
    found = time_mechanisms(layers, torch.randn(1, 12, 16), 3, reference="sdpa").measured
    assert found["mechanisms"]["eager"]["ratio"] is None


def test_a_failed_reference_leaves_the_findings_standing(records):
    record = records.where(kind="time")[-1]
    measured = {**record.measured, "mechanisms": {
        name: {**found, "ratio": None} for name, found in record.measured["mechanisms"].items() if name != "sdpa"
    }, "failed": {"sdpa": "no kernel"}}  # fmt: skip
    lame = Records([dataclasses.replace(record, measured=measured)])
    study = AttentionStudy(**TINY)
    assert {finding.id for finding in study.findings(lame)} == {"attention-cache", "attention-energy"}
    (section,) = study.sections(lame)
    assert "What could not run here" in {table.title for table in section.tables}


def test_measured_energy_is_ranked():
    def metered(joules):
        reading = {"value": joules, "unit": "J", "provenance": "measured", "reason": "", "cure": ""}
        return {"ratio": None, "metered": {"energy": reading}}

    class Timed:
        key = "k"
        measured = {"mechanisms": {"sdpa": metered(3.0), "linear": metered(0.5), "eager": metered(None)}}  # noqa: RUF012

        class cell:  # noqa: N801
            params = {"length": 512}  # noqa: RUF012

    (finding,) = told._energy(Timed())
    assert finding.estimate == 0.5
    assert "linear attention takes the least energy, 0.5 J" in finding.claim


def test_the_median_has_an_interval_that_covers_it():
    rng = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(100):
        found = median_interval(torch.randn(25, generator=rng).tolist())
        covered += found.low <= 0 <= found.high
    assert 88 <= covered <= 100
    assert median_interval([2.0, 2.0, 2.0]).low == 2.0


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
    assert same == [*(name != "sliding_window" for name in EIGHT), False, False]


def test_only_timing_cells_ask_for_the_machine():
    cells = AttentionStudy(**TINY).cells()
    assert {cell.kind: cell.exclusive for cell in cells} == {"train": False, "time": True}


def test_the_packaged_study_and_the_audits_settings_are_the_eight():
    packaged = load_study("mini-2507.07247")
    assert isinstance(packaged, AttentionStudy)
    assert packaged.mechanisms == AttentionStudy.for_audit().mechanisms == EIGHT
    assert len(packaged.cells()) == 8 * 3 + 5


def test_a_cell_that_cannot_train_fails_alone(tmp_path, monkeypatch):
    from deadweight.attention.linear import Linear

    def broken(self, *args):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Linear, "attend", broken)
    study = AttentionStudy(**{**TINY, "mechanisms": ("sdpa", "linear"), "timing_lengths": (16,)})
    records = run(study, tmp_path)
    assert [failure.cell.params["mechanism"] for failure in records.failed] == ["linear"]
    assert records.where(kind="time")[0].measured["failed"] == {"linear": "RuntimeError: no memory"}
    assert len(list(Store(tmp_path).folder.rglob("record.json"))) == 2
