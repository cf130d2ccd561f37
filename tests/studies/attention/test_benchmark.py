"""The interleaved benchmark: workers that die or lack memory or a kernel are failed rows, and the others go on."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from deadweight.attention import MECHANISMS
from deadweight.errors import CellFailed
from deadweight.meters import IdlePower, ModelledEnergy, NullEnergy, Reading, ReplayEnergy, count
from deadweight.studies.attention.timing.benchmark import interleaved_benchmark
from deadweight.studies.attention.timing.outcome import outcome
from deadweight.studies.attention.timing.subject import Subject
from deadweight.studies.attention.timing.worker import Entry, Runner

pytestmark = pytest.mark.slow

SMALL = {"dim": 16, "heads": 2, "length": 24}


def subjects(*names, **options):
    return {name: Subject(name, **{**SMALL, **options}) for name in names}


def test_every_round_holds_all_and_ratios_are_paired():
    workers = interleaved_benchmark(subjects("sdpa", "linear"), rounds=4, metered=2)
    found = outcome(workers, reference="sdpa", tokens=24, peak=1e9)
    assert found.measured["failed"] == {}
    assert found.result["reference"] == "sdpa"
    ours, theirs = (found.measured["mechanisms"][name]["rounds"] for name in ("linear", "sdpa"))
    ratio = found.measured["mechanisms"]["linear"]["ratio"]
    paired = sorted(one / two for one, two in zip(ours, theirs, strict=True))
    assert ratio["value"] == pytest.approx((paired[1] + paired[2]) / 2)
    assert paired[0] <= ratio["low"] <= ratio["value"] <= ratio["high"] <= paired[-1]
    assert found.measured["mechanisms"]["sdpa"]["ratio"]["value"] == 1
    assert found.context["kernels"] == {"sdpa": "sdpa:flash", "linear": workers[1].first["kernel"]}
    for worker in workers:
        assert len(worker.turns) == 4
        assert [meter["times"] >= 1 for meter in worker.meters] == [True, True]


def test_a_killed_worker_is_a_failed_row_and_the_others_go_on():
    started = {}

    def kill(text, done):
        if done > 0.5 and "linear" in started:
            os.kill(started.pop("linear"), signal.SIGKILL)

    workers = interleaved_benchmark(
        subjects("sdpa", "linear", "eager"), rounds=4, metered=1, note=kill, watch=started.__setitem__
    )
    found = outcome(workers, reference="sdpa", tokens=24)
    assert list(found.measured["mechanisms"]) == ["sdpa", "eager"]
    assert "SIGKILL" in found.measured["failed"]["linear"]
    assert len(workers[0].turns) == len(workers[2].turns) == 4
    assert not any(worker.process.is_alive() for worker in workers)


def test_without_its_reference_a_benchmark_has_no_ratios():
    started = {}

    def kill(text, done):
        if "sdpa" in started:
            os.kill(started.pop("sdpa"), signal.SIGKILL)

    workers = interleaved_benchmark(
        subjects("eager", "sdpa"), rounds=3, metered=1, note=kill, watch=started.__setitem__
    )
    found = outcome(workers, reference="sdpa", tokens=24)
    assert found.measured["mechanisms"]["eager"]["ratio"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can bound a process's memory")
def test_out_of_memory_is_a_failed_row():
    wide = subjects("linear", "eager", length=4000, dim=32, heads=4)
    workers = interleaved_benchmark(
        wide, rounds=3, metered=1, memory=1_200_000_000
    )  # the scores alone take 256 MB, several times
    found = outcome(workers, reference="linear", tokens=4000)
    assert list(found.measured["mechanisms"]) == ["linear"]
    assert "memory" in found.measured["failed"]["eager"]


def test_a_missing_kernel_is_a_failed_row(tmp_path, monkeypatch):
    (tmp_path / "machine_without_flash.py").write_text(
        textwrap.dedent("""
        import torch
        from deadweight.studies.attention.timing.subject import Subject

        class Bare(Subject):
            def build(self):
                def no_flash(*args, **kwargs):
                    raise RuntimeError("No available kernel. Aborting execution.")
                if self.mechanism == "flash":
                    torch.nn.functional.scaled_dot_product_attention = no_flash
                return super().build()
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    from machine_without_flash import Bare

    workers = interleaved_benchmark({name: Bare(name, **SMALL) for name in ("sdpa", "flash")}, rounds=3, metered=1)
    found = outcome(workers, reference="sdpa", tokens=24)
    assert list(found.measured["mechanisms"]) == ["sdpa"]
    assert "no flash attention kernel" in found.measured["failed"]["flash"]


def test_a_benchmark_nobody_finishes_is_a_failed_cell():
    workers = interleaved_benchmark(subjects("sdpa", dim=15), rounds=3)  # heads do not divide: raised in the worker
    with pytest.raises(CellFailed, match="heads 2 do not divide dim 15"):
        outcome(workers, reference="sdpa", tokens=24)


def metered(devices, idle=None, rounds=2):
    workers = interleaved_benchmark(subjects("sdpa"), rounds=3, metered=rounds, devices=devices, idle=idle)
    found = outcome(workers, reference="sdpa", tokens=24)
    return found.measured["mechanisms"]["sdpa"]


def test_joules_come_from_the_counter_per_step_and_per_token():
    found = metered([ReplayEnergy([0.0, 6.0, 6.0, 12.0])])
    energy = found["metered"]["energy"]
    assert energy["provenance"] == "measured"
    assert energy["low"] <= energy["value"] <= energy["high"]
    assert energy["n"] == 2
    for joules in (energy["low"], energy["high"]):  # of a round: its six joules over as many steps as it took
        assert 6.0 / joules == pytest.approx(round(6.0 / joules))
    assert found["metered"]["joules_per_token"]["value"] == pytest.approx(energy["value"] / 24)
    assert found["metered"]["energy_scope"] == {"replay": "what replay plays back"}
    assert found["meter_cost"]["ratio"]["n"] == 2
    assert found["meter_cost"]["edges"] > 0


def test_rest_is_taken_off_and_both_are_kept():
    idle = IdlePower({"replay": Reading(1.0, "W", "measured")}, 5.0)
    found = metered([ReplayEnergy([0.0, 6.0])], idle, rounds=1)["metered"]
    assert 0 < found["energy_above_idle"]["value"] < found["energy"]["value"]
    assert found["idle"]["watts"]["value"] == 1.0


def test_a_power_model_is_marked_and_an_absent_counter_missing():
    assert metered([ModelledEnergy(50.0, "me")])["metered"]["energy"]["provenance"] == "modelled"
    energy = metered([NullEnergy("cpu", "none here")])["metered"]["energy"]
    assert (energy["value"], energy["low"], energy["provenance"]) == (None, None, "missing")


@pytest.mark.parametrize("name", MECHANISMS.names())
@pytest.mark.parametrize("subject", ["layer", "model"])
def test_counted_products_equal_the_executed_ones_of_every_mechanism(name, subject):
    told = Runner(Entry(Subject(name, subject=subject, dim=32, heads=4, batch=2, length=70, vocabulary=50))).first()
    facts = told["facts"]
    assert facts["macs_counted"] == facts["macs_executed"] >= facts["macs_necessary"] > 0
    assert facts["bytes_on_disk"] > 4 * facts["parameters"]


def test_a_step_of_a_model_is_the_training_step():
    subject = Subject("sdpa", subject="model", dim=16, heads=2, batch=2, length=24, vocabulary=50)
    built = subject.build()
    before = [p.detach().clone() for p in built.network.parameters()]
    built.step()
    assert any(not torch.equal(one, two) for one, two in zip(before, built.network.parameters(), strict=True))
    counted = count(built.network, built.inputs())
    assert built.facts()["macs_linear"] == counted.macs_linear


@pytest.mark.parametrize("name", ["sdpa", "sliding_window", "linear", "mla", "lsh"])
def test_the_timed_model_decodes_what_a_full_pass_gives(name):
    subject = Subject(name, subject="model", dim=16, heads=2, depth=2, batch=2, length=24, vocabulary=50)
    built = subject.build()
    built.network.eval()
    tokens_BT = built.tokens_BT[:, :-1]
    built.prefill()
    for number in range(9):
        with torch.no_grad():
            whole = torch.cat([tokens_BT, tokens_BT[:, :1].expand(-1, number)], 1)
            torch.testing.assert_close(built.logits_BV, built.network(whole)[:, -1], rtol=1e-4, atol=1e-5)
        assert built.cache.length == 24 + number
        built.decode()


def test_a_script_without_a_guard_does_not_run_twice(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from deadweight.studies.attention.timing.benchmark import interleaved_benchmark
        from deadweight.studies.attention.timing.subject import Subject
        print("here")
        (worker,) = interleaved_benchmark({"sdpa": Subject("sdpa", dim=16, heads=2, length=24)}, rounds=3)
        print(worker.error)
        """)
    )
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=250)
    assert answer.stdout.split() == ["here", "None"]
