"""One family of each kind, every verb against a plain computation: the quick part of `benchmarks/families.py`."""

import pytest
import torch
from families import look, page
from family_checks import CHECKS, Found
from family_zoo import language_families, vision_families

pytestmark = pytest.mark.slow

KINDS = {
    "llama": "rotary, pre-norm, gated",
    "gpt2": "learned positions, plain MLP",
    "opt": "learned positions, MLP in the block",
    "bloom": "ALiBi",
    "gpt_neo": "local attention",
    "gpt_neox": "parallel attention and MLP",
    "gpt_bigcode": "one key and value head",
    "olmo2": "post-norm",
    "gemma2": "sandwich norms, every other layer slides",
    "mixtral": "experts",
    "deepseek_v3": "latent attention, shared experts",
    "qwen3_next": "hybrid, gated delta rule",
    "mamba": "state space",
    "rwkv": "recurrent",
    "gemma4_text": "sizes layer by layer",
    "vit": "CLS",
    "deit (DeiTForImageClassificationWithTeacher)": "distilled, two heads",
    "dinov2_with_registers": "registers",
    "beit": "relative positions, no CLS is read",
    "swin": "windows, stages",
}
FAMILIES = {one.name: one for one in (*language_families(), *vision_families()) if one.name in KINDS}


@pytest.fixture(autouse=True)
def one_thread():
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(was)


@pytest.mark.parametrize("name", KINDS)
def test_right_or_refused(name):
    found = look(FAMILIES[name])
    assert isinstance(found, dict), found
    assert set(found) == set(CHECKS[FAMILIES[name].kind])
    assert {verb: cell.why for verb, cell in found.items() if cell.word == "wrong"} == {}
    assert all(cell.why for cell in found.values() if cell.word != "right")
    assert found["count"].word == "right"


def test_a_page_names_what_is_wrong_and_what_was_not_tried():
    families = list(FAMILIES.values())[:3]
    verbs = CHECKS["causal_lm"]
    right = dict.fromkeys(verbs, Found("right"))
    rows = [
        (families[0], right),
        (families[1], {**right, "count": Found("wrong", "off by 3")}),
        (families[2], "no room"),
    ]
    text = page(rows)
    assert f"| {families[0].name} | " + " | ".join(["right"] * len(verbs)) + " |" in text
    assert "wrong [1]" in text
    assert "1. off by 3" in text
    assert f"{families[2].name} (no room)" in text
