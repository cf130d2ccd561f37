"""Padding is no part of a text on either side, and a model's parts may return tuples."""

import numpy as np
import pytest
import torch
import transformers

from deadweight.probes import profile

SIZE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
FAMILIES = {
    "learned positions": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, **SPECIAL)
    ),
    "rotary": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZE, intermediate_size=64, **SPECIAL)),
}
LENGTHS = (4, 7, 12)
COLUMNS = ["raw_similarity", "centered_similarity", "influence", "pe_dominance"]


def texts():
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(2, 64, (length,), generator=draw) for length in LENGTHS]


def padded(side):
    width = max(LENGTHS) + 2
    ids, mask = torch.full((3, width), 1), torch.zeros(3, width, dtype=torch.long)
    for row, text in enumerate(texts()):
        first = {"left": width - len(text), "right": 0, "both": 1}[side]
        ids[row, first : first + len(text)], mask[row, first : first + len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_any_side_is_no_part_of_a_text(family, side):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)  # so that tokens attend
    ids = np.arange(len(LENGTHS))
    alone = profile(model, [({"input_ids": t[None]}, None, ids[n : n + 1]) for n, t in enumerate(texts())])
    together = profile(model, [(padded(side), None, ids)])
    for column in COLUMNS:
        np.testing.assert_allclose(
            together.table()[column].to_numpy(float), alone.table()[column].to_numpy(float), atol=1e-6
        )


def test_a_text_with_a_hole_is_left_as_it_is():
    torch.manual_seed(0)
    model, whole = FAMILIES["learned positions"]().eval(), padded("left")
    whole["attention_mask"][2, -3] = 0
    seen = []
    model.transformer.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True)
    profile(model, [(whole,)], probes=["influence"])
    assert torch.equal(seen[0], whole["input_ids"])


def test_a_model_whose_embedding_returns_a_tuple_is_profiled():
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.Data2VecVisionConfig(**size, image_size=32, patch_size=8, num_labels=4)
    model, pictures = transformers.Data2VecVisionForImageClassification(config).eval(), torch.randn(6, 3, 32, 32)
    found = profile(model, [(pictures, torch.arange(6) % 2)]).table()["raw_similarity"].to_numpy(float)
    with torch.no_grad():
        states = model(pictures, output_hidden_states=True).hidden_states
    for row, tokens in enumerate(states[:4]):
        unit = torch.nn.functional.normalize(tokens[:, 1:].double(), dim=-1)  # patches: the first token is CLS
        pairs = unit @ unit.mT
        count = unit.shape[1]
        mean = (pairs.sum((1, 2)) - count) / (count * (count - 1))
        assert found[row] == pytest.approx(float(mean.mean()), abs=1e-5)
