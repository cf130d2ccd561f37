"""Blocks are left out of every family of language models; where the rest cannot be refitted, that is said."""

import pytest
import torch
import transformers

from deadweight.studies.depth.language import _refitted
from deadweight.surgery import drop_blocks

WORDS = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24,
    vocab_size=40, bos_token_id=None, eos_token_id=0, pad_token_id=None,
)  # fmt: skip
FAMILIES = {
    "llama": (lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**WORDS)), "stream", ""),
    "olmo2": (lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**WORDS)), None, "nothing was refitted"),
    "mixtral": (
        lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**WORDS, num_local_experts=2)),
        None, "nothing was refitted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_rest_is_refitted_where_it_can_be(name):
    make, target, said = FAMILIES[name]
    torch.manual_seed(0)
    model, tokens = make().eval(), torch.randint(1, 40, (8, 32))
    found, remark = _refitted(model, [1], [tokens])
    wanted = drop_blocks(model, [1], **({} if target is None else {"refit": target, "batches": [tokens]}))
    assert torch.equal(found(tokens).logits, wanted(tokens).logits)
    assert remark.startswith(said)
    assert bool(remark) == bool(said)
