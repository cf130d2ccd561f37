"""Everything that multiplies is counted, as what it is: by hand, by PyTorch's own counter, or said not to be."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from transformers import MixtralConfig, MixtralForCausalLM, OlmoeConfig, OlmoeForCausalLM

from deadweight.meters import count

VOCABULARY, WIDTH, INNER, LAYERS, HEADS, TOKENS = 64, 32, 48, 2, 4, 10
EXPERTS, CHOSEN = 8, 2
MIXTURES = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": EXPERTS}),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig, {"num_experts": EXPERTS}),
}


def mixture(family):
    model, config, experts = MIXTURES[family]
    torch.manual_seed(0)
    return model(
        config(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=HEADS, num_experts_per_tok=CHOSEN, eos_token_id=0,
            bos_token_id=0, pad_token_id=0, **experts)).eval()  # fmt: skip


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_experts_are_counted_by_hand_whichever_kernel_runs_them(family, implementation):
    model = mixture(family)
    model.config._experts_implementation = implementation
    counts = count(model, {"input_ids": torch.arange(TOKENS)[None]})
    per_token = 4 * WIDTH**2 + CHOSEN * 3 * WIDTH * INNER + WIDTH * EXPERTS
    assert counts.macs_linear == TOKENS * (LAYERS * per_token + WIDTH * VOCABULARY)
    assert counts.necessary == LAYERS * HEADS * TOKENS * (TOKENS + 1) // 2 * 2 * (WIDTH // HEADS)
    assert counts.executed_parameters == counts.parameters
    assert counts.parameters - counts.active_parameters == LAYERS * (EXPERTS - CHOSEN) * 3 * WIDTH * INNER
    assert counts.uncounted == ()


class Grid(nn.Module):
    """``torch.addbmm``, a sum of products, of a parameter and an input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5, 7))

    def forward(self, x_BNM):
        return torch.addbmm(torch.zeros(4, 7), x_BNM, self.weight)


RECURRENT = 6 * 2 * (4 * 5 * (3 + 5) + 4 * 5 * (5 + 5))  # steps, batch, four gates of two layers
LAYERS_OF_TORCH = {
    "LSTM": (lambda: nn.LSTM(3, 5, num_layers=2), (6, 2, 3), RECURRENT),
    "LSTM, both ways": (lambda: nn.LSTM(3, 5, bidirectional=True), (6, 2, 3), 6 * 2 * 2 * 4 * 5 * (3 + 5)),
    "GRU": (lambda: nn.GRU(3, 5), (6, 2, 3), 6 * 2 * 3 * 5 * (3 + 5)),
    "bilinear": (lambda: Twice(nn.Bilinear(3, 3, 5)), (6, 3), 6 * 5 * 3 * 3),
    "addbmm": (Grid, (3, 4, 5), 3 * 4 * 5 * 7),
}


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x)


class ReadsItsInput(nn.Module):
    """Cannot run without numbers, so that it is counted on the kernels of this machine."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        assert float(x.sum()) < float("inf")
        return self.layer(x)


@pytest.mark.parametrize("for_real", [False, True], ids=["shapes", "numbers"])
@pytest.mark.parametrize(("build", "shape", "macs"), LAYERS_OF_TORCH.values(), ids=LAYERS_OF_TORCH)
def test_layers_that_hide_their_products_are_counted_by_hand(build, shape, macs, for_real):
    layer = ReadsItsInput(build()) if for_real else build()
    counts = count(layer, torch.randn(shape))
    assert (counts.macs_linear, counts.macs_attention) == (macs, 0)


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(12, 2)), nn.Parameter(torch.randn(2, 8))

    def forward(self, weight):
        return weight + self.up @ self.down


def masked():
    return prune.random_unstructured(nn.Linear(8, 12), "weight", amount=0.5)


def low_rank():
    layer = nn.Linear(8, 12)
    parametrize.register_parametrization(layer, "weight", LowRank())
    return layer


class Rounded(nn.Module):
    """Weights in whole numbers with scales, as buffers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(12, 8, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(12, 1))

    def forward(self, x):
        return x @ (self.weight.to(torch.float32) * self.scale).T


@pytest.mark.parametrize(
    ("build", "beside"),
    {
        "pruning mask": (masked, 0),
        "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 12)), 0),
        "low-rank sum": (low_rank, 12 * 2 * 8),
        "rounded": (Rounded, 0),
    }.values(),
    ids=["pruning mask", "weight norm", "low-rank sum", "rounded"],
)
def test_a_weight_that_is_made_of_the_models_numbers_is_a_weight(build, beside):
    counts = count(build(), torch.randn(2, 5, 8))
    assert (counts.macs_linear, counts.macs_attention) == (2 * 5 * 8 * 12 + beside, 0)


class LearnedQueries(nn.Module):
    """Queries made of parameters, keys and values of the input: attention, whatever the first operand is made of."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, 8))
        self.project = nn.Linear(8, 8, bias=False)

    def forward(self, x_BTD):
        queries = self.project(self.queries).view(1, 3, 2, 4).transpose(1, 2).expand(len(x_BTD), -1, -1, -1)
        keys = self.project(x_BTD).view(len(x_BTD), -1, 2, 4).transpose(1, 2)
        return (queries @ keys.mT).softmax(-1) @ keys


def test_learned_queries_attend():
    counts = count(LearnedQueries(), torch.randn(2, 6, 8))
    assert counts.macs_linear == (3 + 2 * 6) * 8 * 8
    assert counts.macs_attention == 2 * 2 * 3 * 6 * (4 + 4)


class Hashes(nn.Module):
    """Attention by a hash: its rotations are drawn, not learned."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rotations", torch.randn(8, 3))

    def forward(self, x_BTD):
        return x_BTD @ self.rotations


def test_fixed_numbers_are_no_weights():
    counts = count(Hashes(), torch.randn(2, 6, 8))
    assert (counts.macs_linear, counts.executed) == (0, 2 * 6 * 8 * 3)


class Remembers(nn.Module):
    """Keys kept in a buffer are activations all the same."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(2, 6, 8))

    def forward(self, x_BTD):
        self.kept.copy_(x_BTD)
        return x_BTD @ self.kept.mT


def test_what_is_written_into_a_buffer_is_no_weight():
    counts = count(Remembers(), torch.randn(2, 6, 8))
    assert (counts.macs_linear, counts.macs_attention) == (0, 2 * 6 * 6 * 8)


def quantised(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has announced another package for this
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {type(layer)}, dtype=torch.qint8)


def test_a_layer_packed_by_quantisation_counts_as_what_it_stands_for():
    counts = count(quantised(nn.Linear(8, 12)), torch.randn(5, 8))
    assert (counts.macs_linear, counts.macs_attention) == (5 * 8 * 12, 0)
    assert counts.parameters == counts.executed_parameters == 8 * 12 + 12


class Substitution(nn.Module):
    def forward(self, x):
        return torch.linalg.solve_triangular(x @ x.mT, x, upper=False)


def test_a_triangular_system_is_counted_by_hand():
    counts = count(Substitution(), torch.randn(2, 5, 3))
    assert counts.macs_attention == counts.executed == 2 * (5 * 5 * 3 + 3 * 5 * 4 // 2)


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


@pytest.mark.parametrize(
    ("build", "shape", "name"),
    [(Spectrum, (4, 8), "aten::_fft_r2c"), (lambda: quantised(nn.LSTM(8, 4)), (2, 1, 8), "aten::quantized_lstm")],
    ids=["fft", "quantised LSTM"],
)
def test_an_operation_nothing_is_known_of_is_named(build, shape, name):
    with pytest.warns(UserWarning, match=rf"{name}.*lower bounds"):
        counts = count(build(), torch.randn(shape))
    assert counts.uncounted == (name,)
