"""The sections' own arithmetic, on boards that are not there and kernels that are wrong."""

from dataclasses import replace

import nvml
import pynvml
import pytest
import torch
from gpu_sections import Plan, board, card, correctness, joules, kernels, speed
from gpu_sections.nearness import error
from torch import nn

from deadweight.attention import sdpa
from deadweight.meters import IdlePower, NullEnergy, Reading
from deadweight.meters.gpus import gpu_devices
from deadweight.studies.attention.timing.subject import Subject

pytestmark = pytest.mark.slow

GPU, REHEARSAL = Plan(), Plan("cpu", rehearsal=True)
SMALL = replace(joules.TINY, depth=2, seconds=0.1)


def collected(work, *arguments):
    rows = []
    work(*arguments, rows.append)
    return {row["name"]: row for row in rows}


def test_one_board_is_charged_and_nothing_said(monkeypatch):
    nvml.install(monkeypatch, nvml.board("A"))
    (device,), note = board.energy_of_the_board(GPU)
    assert (device.name, device.provenance, note) == ("gpu 0", "measured", "")


@pytest.mark.parametrize(
    ("torchs", "name", "told"), [("two", "gpu 1", "alone is charged"), (None, "gpu 0", "none known")]
)
def test_of_two_boards_the_one_that_torch_computes_on_is_charged(monkeypatch, torchs, name, told):
    nvml.install(monkeypatch, nvml.board("A", uuid="GPU-one"), nvml.board("B", uuid="GPU-two"))
    monkeypatch.setattr(board, "uuid_of_torch", lambda: torchs)
    (device,), note = board.energy_of_the_board(GPU)
    assert device.name == name
    assert told in note


def refuse(*arguments):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


def test_a_gpu_without_nvml_is_rows_that_say_so(monkeypatch):
    nvml.install(monkeypatch, nvml.board("A"))
    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    (device,), _ = board.energy_of_the_board(GPU)
    assert (device.provenance, device.joules()) == ("missing", None)
    told = card.driver(GPU)
    assert told["status"] == "missing"
    assert "NVML" in told["reason"]


def test_without_a_counter_time_and_memory_are_told_all_the_same(monkeypatch):
    device = NullEnergy("gpu 0", "no NVML here", "install it")
    monkeypatch.setattr(joules, "energy_of_the_board", lambda plan: ([device], "a note"))
    monkeypatch.setattr(joules, "TINY", replace(SMALL, rounds={32: 1}))
    monkeypatch.setattr(joules, "EIGHT", ("flash",))
    monkeypatch.setattr(joules, "BEYOND", ())
    rows = collected(joules.joules, REHEARSAL)
    assert rows["power at rest, before"]["status"] == "missing"
    flash = rows["flash, 32 tokens"]
    assert flash["status"] == "ok"
    assert flash["step"]["joules_per_token"] is None
    assert flash["step"]["joules_per_token_above_idle"] is None
    assert flash["step"]["energy_reason"] == "gpu 0: no NVML here"
    assert flash["step"]["seconds"] > 0


@pytest.mark.parametrize("value", ["MIG-7", "GPU-8f2b"], ids=["slice", "by-uuid"])
def test_boards_that_zeus_cannot_name_are_missing_with_the_reason(monkeypatch, value):
    nvml.install(monkeypatch, nvml.board("A"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    (device,), _ = board.energy_of_the_board(GPU)
    assert device.provenance == "missing"
    assert device.reason


@pytest.mark.parametrize(("mig", "sliced"), [(True, True), (False, False), (None, False)], ids=["on", "off", "cannot"])
def test_whether_the_board_is_sliced_is_told(monkeypatch, mig, sliced):
    nvml.install(monkeypatch, nvml.board("A", mig=mig))
    told = card.driver(GPU)
    assert (told["status"], told["mig"], told["driver"]) == ("ok", sliced, "580.0")
    assert ("MIG is on" in told["reason"]) == sliced


def test_joules_per_token_are_power_times_time_over_tokens(monkeypatch):
    driver = nvml.install(monkeypatch, nvml.board("A"))
    driver.counted = 160.0  # the counter misses a fifth of the 200 W that the power says
    devices = [replace(gpu_devices()[0], shortest=0.4)]
    idle = IdlePower({"gpu 0": Reading(100.0, "W", "measured")}, 1.0)
    row = joules.cost_of("sdpa", 32, 0, SMALL, REHEARSAL, devices, idle, 1e12)
    for way in ("forward", "step"):
        told = row[way]
        tokens = row["batch"] * row["length"]
        assert told["tokens_per_second"] == pytest.approx(tokens / told["seconds"])
        assert told["joules_per_token"] == pytest.approx(160 * told["seconds"] / tokens, rel=0.1)
        assert told["joules_per_token_above_idle"] == pytest.approx(60 * told["seconds"] / tokens, rel=0.25)
        assert told["integrated_over_counted"] == pytest.approx(1.25, rel=0.1)
        assert told["energy"] == "measured"


@pytest.mark.parametrize("name", ["sdpa", "sliding_window", "linear", "lsh", "mla", "gated_delta"])
def test_needed_operations_are_those_that_an_independent_count_finds(name):
    built = Subject(name, {}, "model", 32, 2, 3, 64, 2, 48).build()
    facts = built.facts()
    forward, step = joules.needed(built, 2, 48, 3)
    assert forward == 2 * (facts["macs_linear"] + facts["macs_necessary"])
    assert step == 3 * forward - 4 * facts["macs_without_gradient"]


def test_a_part_that_computes_something_else_is_called_wrong(monkeypatch):
    attend = sdpa.Sdpa.attend

    def off(self, *given):
        y = attend(self, *given)
        return y * 1.01 if y.dtype == torch.float32 else y

    monkeypatch.setattr(sdpa.Sdpa, "attend", off)
    monkeypatch.setattr(correctness, "PARTS", {})
    rows = collected(correctness.correctness, REHEARSAL)
    assert rows["sdpa, float32"]["status"] == rows["sdpa, decoding"]["status"] == "wrong"
    assert rows["sdpa, float32"]["error"] == pytest.approx(0.01, rel=0.2)
    assert rows["sdpa, bfloat16"]["status"] == rows["linear, float32"]["status"] == "ok"


def test_what_is_not_finite_is_infinitely_wrong():
    assert error([torch.tensor([1.0, float("nan")])], [torch.ones(2)]) == float("inf")
    assert error([torch.tensor([3.0, 4.0])], [torch.tensor([0.0, 0.0])]) == 5.0
    assert error([torch.tensor([3.0])], [torch.tensor([4.0])]) == 0.25


def test_a_kernel_that_solves_another_problem_is_named_and_not_timed():
    problem = kernels.problems(2, 16)["causal"]
    peers = {"two-sided": lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v), "itself": problem.ours}
    given, rows = speed.inputs(1, 2, 40, 16, torch.float32, "cpu"), []
    found = speed.compared("causal", replace(problem, peers=peers), given, REHEARSAL, rows.append)
    assert set(found) == {"ours", "itself"}
    assert [(row["name"], row["status"]) for row in rows] == [("causal, 40 tokens: two-sided", "wrong")]


def test_ours_is_held_against_the_fastest_other():
    problem = kernels.problems(2, 16)["causal"]
    seconds = {"ours": [0.3, 0.3], "a": [0.2, 0.2], "b": [0.4, 0.4]}
    rows = []
    speed.told("causal, 8 tokens", problem, seconds, 0.03, 0.3, rows.append)
    ours = rows[0]
    assert (ours["best"], ours["reached"], ours["goal"]) == ("a", False, 1.1)
    assert ours["over_best"] == pytest.approx(1.5)
    assert ours["mfu"] == pytest.approx(0.1)
    assert rows[2]["over_sdpa"] == pytest.approx(4 / 3)


@pytest.mark.parametrize("name", [f"window {kernels.WINDOW}", "block-sparse"])
def test_the_masks_of_the_others_are_those_of_our_mechanisms(name):
    """Long enough that the masks hide something."""
    problem = kernels.problems(2, 16)[name]
    given = speed.inputs(1, 2, 1400, 16, torch.float32, "cpu")
    ours = problem.ours(*given[:3])
    torch.testing.assert_close(problem.peers["SDPA with a mask"](*given[:3]), ours, rtol=1e-4, atol=1e-5)
    causal = kernels.problems(2, 16)["causal"].ours(*given[:3])
    assert error([ours], [causal]) > 0.01


@pytest.mark.parametrize("name", ["retention", "gated delta rule"])
def test_our_side_of_the_recurrent_problems_is_the_oracle(name):
    from deadweight.attention import oracles

    q, k, v, _ = (x.detach().double() for x in speed.inputs(1, 2, 70, 16, torch.float32, "cpu"))
    if name == "retention":
        wanted = oracles.retention(q, k, v)
    else:
        keep, write = kernels.gates(q)
        wanted = oracles.delta_rule(q, k, v, keep.double().exp(), write.double())
    found = kernels.problems(2, 16)[name].ours(q.float(), k.float(), v.float())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4)
