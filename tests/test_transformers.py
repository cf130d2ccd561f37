"""Our mechanisms and the energy callback inside transformers and accelerate."""

import json

import pytest
import torch
from accelerate import Accelerator
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

import deadweight.transformers
from deadweight import swap_attention
from deadweight.errors import InputError, SurgeryError
from deadweight.meters import NullEnergy, ReplayEnergy
from deadweight.transformers import EnergyCallback, StepEnergy

NAMES = deadweight.transformers.register()
IDS = torch.randint(1, 60, (3, 20), generator=torch.Generator().manual_seed(0))
CASES = {
    "eager": {}, "sdpa": {}, "flash": {}, "sliding_window": {"window": 5}, "linear": {"chunk": 4},
    "block_sparse": {"block": 4, "local": 1, "stride": 2},
}  # fmt: skip


def llama(**options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=None, pad_token_id=0, **options,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)).eval()


HOSTS = {"llama": llama, "gpt2": gpt2}


@torch.no_grad()
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["eager", "sdpa", "flash"])
def test_exact_mechanisms_change_nothing(host, name):
    model = HOSTS[host]()
    swapped = swap_attention(model, name)
    assert swapped.config._attn_implementation in NAMES
    torch.testing.assert_close(swapped(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_real_token(host, name, side):
    model = swap_attention(HOSTS[host](), name, **CASES[name])
    short = 13
    ids, mask = torch.zeros(2, 20, dtype=torch.long), torch.zeros(2, 20, dtype=torch.long)
    ids[0], mask[0] = IDS[0], 1
    real = slice(20 - short, 20) if side == "left" else slice(0, short)
    ids[1, real], mask[1, real] = IDS[1, :short], 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(logits[1, real], model(IDS[1:2, :short]).logits[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[0], model(IDS[:1]).logits[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("cuts", [[12, *[1] * 8], [7, 6, 7]], ids=["steps", "pieces"])
def test_cached_decoding_equals_the_full_pass(host, name, cuts):
    model = swap_attention(HOSTS[host](), name, **CASES[name])
    cache, parts, start = None, [], 0
    for count in cuts:
        out = model(IDS[:, start : start + count], past_key_values=cache, use_cache=True)
        cache, start = out.past_key_values, start + count
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), model(IDS).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_from_a_left_padded_batch_equals_generation_alone(name, cache):
    model = swap_attention(llama(), name, **CASES[name])
    ids, mask = torch.zeros(2, 20, dtype=torch.long), torch.ones(2, 20, dtype=torch.long)
    ids[0], ids[1, 7:] = IDS[0], IDS[1, :13]
    mask[1, :7] = 0
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": cache, "disable_compile": True}
    together = model.generate(ids, attention_mask=mask, **options)[:, 20:]
    for row, alone in ((0, IDS[:1]), (1, IDS[1:2, :13])):
        assert torch.equal(together[row], model.generate(alone, **options)[0, alone.shape[1] :])


@torch.no_grad()
def test_a_window_reaches_as_far_as_it_says_in_a_host():
    model = swap_attention(gpt2(), "sliding_window", window=3)
    changed = IDS[:1].clone()
    changed[0, 0] = (changed[0, 0] + 1) % 60
    moved = (model(changed).logits - model(IDS[:1]).logits).abs().amax(2)[0] > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(1 + 2 * 2))  # two layers, each two tokens farther


def test_pooled_keys_and_values_of_a_llama():
    model = llama()
    swapped = swap_attention(model, "mqa")
    attention = swapped.model.layers[0].self_attn
    heads = model.model.layers[0].self_attn.k_proj.weight.view(2, 8, 32)
    torch.testing.assert_close(attention.k_proj.weight, heads.mean(0))
    out = swapped(IDS, use_cache=True)
    assert out.past_key_values.layers[0].keys.shape[1] == 1
    same = swap_attention(model, "gqa", groups=2)
    torch.testing.assert_close(same(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(SurgeryError, match="k_proj"):
        swap_attention(gpt2(), "gqa")


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_vits_of_transformers(name):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ViTForImageClassification(ViTConfig(**sizes, intermediate_size=32)).eval()
    x = torch.randn(2, 3, 16, 16)
    swapped = swap_attention(model, name, **CASES[name])
    same = torch.allclose(swapped(x).logits, model(x).logits, atol=1e-5)
    assert same == (name in ("eager", "sdpa", "flash"))
    assert swap_attention(model, "sliding_window", window=17)(x).logits.allclose(model(x).logits, atol=1e-5)


def test_gradients_reach_a_hosts_weights():
    model = swap_attention(llama(), "linear").train()
    model(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_refusals():
    with pytest.raises(SurgeryError, match="projections of its own"):
        swap_attention(llama(), "mla")
    with pytest.raises(InputError, match="window 0"):
        swap_attention(llama(), "sliding_window", window=0)
    training = swap_attention(gpt2(), "linear").train()  # GPT-2 comes with attention dropout
    with pytest.raises(InputError, match="attn_pdrop"):
        training(IDS)


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_packed_sequences_never_run_into_each_other(name):
    model = swap_attention(llama(), name, **CASES[name])
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    if name not in ("eager", "sdpa"):
        with pytest.raises(InputError, match="neither causal nor padding"):
            model(IDS[:1], position_ids=positions, use_cache=False)
        return
    packed = model(IDS[:1], position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(packed[:, :8], model(IDS[:1, :8]).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 8:], model(IDS[:1, 8:]).logits, rtol=1e-4, atol=1e-5)


def trainer(tmp_path, callback):
    data = [{"input_ids": row, "labels": row} for row in IDS.repeat(4, 1)]
    arguments = TrainingArguments(
        tmp_path / "out", per_device_train_batch_size=2, max_steps=3, logging_steps=1, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return Trainer(llama(), arguments, train_dataset=data, callbacks=[callback])


def test_the_trainer_records_the_energy_of_each_step(tmp_path):
    callback = EnergyCallback([ReplayEnergy([0.0, 2.0, 5.0, 6.0, 7.0, 9.0])], path=tmp_path / "energy.jsonl")
    running = trainer(tmp_path, callback)
    running.train()
    assert [row["energy"]["value"] for row in callback.energy.history] == [2.0, 1.0, 2.0]
    assert callback.energy.total().value == 5.0
    assert [row["step"] for row in map(json.loads, (tmp_path / "energy.jsonl").read_text().splitlines())] == [1, 2, 3]
    logged = [row["energy_joules"] for row in running.state.log_history if "energy_joules" in row]
    assert logged[:3] == [2.0, 1.0, 2.0]


def test_without_a_counter_the_trainer_logs_that_it_is_missing_and_no_zero(tmp_path):
    callback = EnergyCallback([NullEnergy("cpu", "no counter here", "buy one")])
    running = trainer(tmp_path, callback)
    running.train()
    total = callback.energy.total()
    assert (total.value, total.provenance) == (None, "missing")
    assert any("no counter here" in row.get("energy_missing", "") for row in running.state.log_history)
    assert not any("energy_joules" in row for row in running.state.log_history)


def test_every_second_step_and_the_rest(tmp_path):
    callback = EnergyCallback([ReplayEnergy([0.0, 3.0, 3.0, 4.0])], every=2)
    trainer(tmp_path, callback).train()
    assert [(row["step"], row["energy"]["value"]) for row in callback.energy.history] == [(2, 3.0), (3, 1.0)]
    with pytest.raises(InputError, match="every 0"):
        StepEnergy(every=0)


def test_the_accelerate_hook_logs_to_its_trackers():
    logged = []
    accelerator = Accelerator(cpu=True)
    accelerator.log = lambda values, step: logged.append((step, values))
    energy = StepEnergy([ReplayEnergy([1.0, 4.0, 4.0, 9.0])])
    model = llama()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    for _ in range(2):
        with energy.step(accelerator):
            accelerator.backward(model(IDS, labels=IDS).loss)
            optimizer.step()
    assert [(step, values["energy/joules"]) for step, values in logged] == [(1, 3.0), (2, 5.0)]
    assert energy.total().value == 8.0


def test_steps_too_short_for_the_counter_are_read_together():
    device = ReplayEnergy([0.0, 4.0, 4.0, 5.0], shortest=3600.0)
    energy = StepEnergy([device])
    for number in (1, 2, 3):
        energy.begin()
        if number == 2:
            device.shortest = energy._shortest = 0.0  # an hour later
        energy.end(number)
        if number == 2:
            assert (energy.history[-1]["steps"], energy.history[-1]["energy"]["value"]) == (2, 4.0)
            device.shortest = energy._shortest = 3600.0
    assert len(energy.history) == 1
    energy.close(3)
    assert "too short" in energy.history[-1]["energy"]["reason"]
    total = energy.total()
    assert (total.value, total.provenance) == (4.0, "measured")
    assert "covers 2 of 3 steps" in total.reason
