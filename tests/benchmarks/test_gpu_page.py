"""The page of a run, from a JSON made by hand."""

from pathlib import Path

import pytest
from gpu_sections.page import energies, page
from gpu_sections.paper import PUBLISHED_MJ, agreement, ranking
from gpu_sections.plan import row

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "results" / "gpu.md"


def cost(joules, seconds=0.01):
    return {
        "seconds": seconds, "tokens_per_second": 8192 / seconds, "peak_bytes": 2_000_000, "times": 9, "watts": 300.0,
        "joules_per_token": None if joules is None else joules + 1e-5, "joules_per_token_above_idle": joules,
        "energy": "missing" if joules is None else "measured", "energy_reason": "", "mfu": 0.4,
        "integrated_over_counted": 1.02,
    }  # fmt: skip


def cell(name, joules, number=0):
    told = {"mechanism": name, "length": 512, "batch": 16, "round": number, "kernel": f"kernel of {name}"}
    return row(f"{name}, 512 tokens", **told, forward=cost(joules and joules / 3), step=cost(joules))


def document(**sections):
    made = {"machine": [row("card", card="H100", boards=1), row("NVML", driver="580.0", mig=False),
                        row("versions", torch="2.11.0", triton=None), row("peak, bfloat16", flops_per_second=8e14)],
            **sections}  # fmt: skip
    done = {name: {"status": "done", "reason": "", "seconds": 1.0, "rows": rows} for name, rows in made.items()}
    return {"schema": 1, "rehearsal": False, "complete": True, "sections": done}


def test_the_committed_page_is_the_one_that_is_made():
    """Until a GPU is reached, that of no run; then that of the run's JSON, which lies beside it."""
    text = COMMITTED.read_text(encoding="utf-8")
    if "No GPU has been reached yet" in text:
        assert text == page(None)


def test_the_page_names_card_driver_versions_and_peak():
    text = page(document())
    for told in ("H100", "driver 580.0", "torch 2.11.0", "bfloat16 800 TFLOP/s"):
        assert told in text
    assert "triton" not in text
    assert "rehearsal" not in text


def test_energies_are_medians_of_the_rounds_and_stand_in_microjoules():
    told = document(joules=[cell("flash", 4e-5), cell("flash", 6e-5, 1), cell("flash", 5e-5, 2), cell("mla", 7e-5)])
    assert energies(told, 512) == pytest.approx({"flash": 5e-5, "mla": 7e-5})
    text = page(told)
    assert "### 512 tokens" in text
    assert "| flash | kernel of flash | 50 (60) | 16.7 (26.7) | 10 | 10 | 0.4 | 2 | 1.02 |" in text
    assert "8,192 tokens a step" in text


@pytest.mark.parametrize(("turn", "tau"), [(1, "1"), (-1, "−1")], ids=["the same", "turned round"])
def test_the_published_order_stands_beside_ours(turn, tau):
    told = document(joules=[cell(name, (3 + turn * mj) * 1e-5) for name, mj in PUBLISHED_MJ.items()])
    text = page(told)
    assert f"of the two orders: {tau}." in text
    assert f"| 1 | flash | 1.07 | {1 if turn == 1 else 8} |" in text
    assert f"| 8 | sliding_window | 1.43 | {8 if turn == 1 else 1} |" in text


def test_orders_of_few_have_no_agreement_and_equal_ones_are_alphabetical():
    assert agreement({"flash": 1.0, "mla": 2.0}, PUBLISHED_MJ) is None
    assert ranking({"b": 1.0, "a": 1.0, "c": 0.5}) == ["c", "a", "b"]


def test_missing_energies_are_called_missing_and_no_order_is_made_of_them():
    told = document(joules=[row("power at rest, before", "missing", "no NVML", watts=None), cell("flash", None)])
    text = page(told)
    assert "missing (missing)" in text
    assert "Not compared: no NVML." in text
    assert "before: missing. no NVML" in text


def test_what_is_wrong_missing_cut_or_out_of_memory_is_on_the_page():
    told = document(
        correctness=[
            row("mla, float32", "wrong", error="inf", bound=1e-4),
            row("sdpa, float32", error=1e-7, bound=1e-4),
        ],
        joules=[row("eager, 8192 tokens", "out of memory", "58 GiB <asked> | for")],
    )
    told["sections"]["joules"] |= {"status": "under way"}
    text = page(told)
    assert "1 of 2 comparisons are within their bounds" in text
    assert "| mla, float32 |  | inf | – | 0.0001 | **wrong** |" in text
    assert "| joules | eager, 8192 tokens | out of memory | 58 GiB &lt;asked> \\| for |" in text
    assert "| joules | the section | cut |" in text


def test_goals_are_reached_or_not():
    values = {"low": 1.0, "high": 1.3, "ours_seconds": 1.2, "theirs_seconds": 1.0, "goal": 1.15}
    told = document(
        profile=[row("profile over the bare pass", ratio=1.2, reached=False, **values)],
        speed=[row("window: ours", kernel="banded", seconds=0.002, low=0.001, high=0.003, mfu=0.2, over_sdpa=0.5,
                   best="flex_attention", over_best=1.4, goal=1.1, reached=False)],
    )  # fmt: skip
    text = page(told)
    assert "| profile over the bare pass | 1.2 (1 … 1.3) | 1,200 | 1,000 | 1.15 | **not reached** |" in text
    assert "| window: ours | banded | 2 (1 … 3) | 0.2 | 0.5 | 1.4 (flex_attention): not reached |" in text


def test_a_run_that_reached_no_gpu_makes_the_page_of_no_run_with_its_reason():
    told = document()
    told["sections"] = {
        "machine": {
            "status": "no gpu",
            "reason": "no driver",
            "seconds": 1.0,
            "rows": [row("gpu", "missing", "no driver")],
        }
    }
    assert page(told) == page(None).replace("\n## What", "\nThe last try: no driver\n\n## What")
