"""What is timed: one attention layer, or a whole small GPT-2 with it, at one length. Runs inside a worker process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from deadweight.attention import Mechanism, mechanism
from deadweight.errors import InputError
from deadweight.lab import Json
from deadweight.meters import count
from deadweight.models import torch_dtype
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.training.language import language_optimizer, language_step

DECODED = 8  # tokens a timed round decodes, one after the other
SMALL = 16  # tokens of the step that wakes up libraries before memory is measured
LR = 1e-6  # timed training steps move the weights as little as makes no difference


@dataclass(frozen=True)
class Subject:
    """Everything that decides what a worker builds and how it runs; plain values.

    subject: ``layer``, or ``model`` for a GPT-2 of `depth` blocks.
    """

    mechanism: str
    options: Mapping[str, Json] = field(default_factory=dict)
    subject: Literal["layer", "model"] = "layer"
    dim: int = 128
    heads: int = 4
    depth: int = 2
    vocabulary: int = 256
    batch: int = 1
    length: int = 256
    dtype: str = "float32"
    seed: int = 0
    device: str = "cpu"

    def build(self) -> Built:
        """The layer or model with weights and inputs from the seed."""
        return (Layer if self.subject == "layer" else Model)(self)


def causal(name: str, dim: int, heads: int, options: Mapping[str, Json]) -> Mechanism:
    """The mechanism, or a refusal where its options make it look ahead: a language model must not."""
    made = mechanism(name, dim, heads, **options)
    if not made.causal:
        raise InputError(f"mechanism {name!r} with causal = false", expected="causal attention", cure="leave it out")
    return made


class Built(ABC):
    """A subject that can be run: `step` trains, `prefill` reads all tokens into a cache, `decode` adds one more."""

    network: nn.Module
    attention: Mechanism
    step: Callable[[], object]
    prefill: Callable[[], object]
    decode: Callable[[], object]
    small: Callable[[], object]

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.device = torch.device(subject.device)
        self.dtype = torch_dtype(subject.dtype)
        self.generator = torch.Generator().manual_seed(subject.seed)

    @property
    def kernel(self) -> str:
        """What really ran last."""
        return self.attention.kernel

    @abstractmethod
    def inputs(self) -> Any:
        """What the network is called with, for counting."""

    def facts(self) -> dict[str, Json]:
        """What follows from shapes alone. MACs are of the forward pass: those with a weight (`macs_linear`), and the
        products between activations, `necessary` over unmasked pairs and `executed` by the code.

        `macs_counted` are the executed ones as an independent count of the pass finds them.
        """
        want, layers = self.subject, 1 if self.subject.subject == "layer" else self.subject.depth
        macs = self.attention.macs(want.batch, want.length)
        counted = count(self.network, self.inputs())
        cache = layers * self.attention.cache_bytes(want.length)
        return {
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "bytes_on_disk": _bytes_on_disk(self.network),
            "macs_linear": counted.macs_linear,
            "macs_necessary": layers * macs.necessary,
            "macs_executed": layers * macs.executed,
            "macs_counted": counted.executed,
            "cache_bytes": cache,
            "cache_bytes_a_token": cache / want.length,
        }


class Layer(Built):
    """One attention layer; a step is forward and backward."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)
            self.attention = causal(subject.mechanism, subject.dim, subject.heads, subject.options)
        self.network = self.attention.to(self.device, self.dtype)
        x = torch.randn(subject.batch, subject.length, subject.dim, generator=self.generator)
        self.x_BTC = x.to(self.device, self.dtype)

    def step(self) -> None:
        self._step(self.x_BTC)

    def small(self) -> None:
        self._step(self.x_BTC[:, :SMALL])

    def _step(self, x_BTC: Tensor) -> None:
        self.network.zero_grad(set_to_none=True)
        self.attention(x_BTC.detach().requires_grad_()).sum().backward()

    @torch.no_grad()
    def prefill(self) -> None:
        _, self.cache = self.attention(self.x_BTC, self.attention.new_cache(self.subject.batch))

    @torch.no_grad()
    def decode(self) -> None:
        _, self.cache = self.attention(self.x_BTC[:, :1], self.cache)

    def inputs(self) -> Tensor:
        return self.x_BTC


class Model(Built):
    """A GPT-2 whose blocks hold the mechanism; a step is forward, backward and the optimizer's."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        shape = GPT2Config(subject.vocabulary, subject.length + DECODED + 1, subject.dim, subject.depth, subject.heads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)
            model = GPT2(shape, lambda _: causal(subject.mechanism, subject.dim, subject.heads, subject.options))
        self.network = self.model = model.to(self.device, self.dtype)
        first: Any = model.blocks[0]
        found = first.attention
        assert isinstance(found, Mechanism)
        self.attention = found
        size = (subject.batch, subject.length + 1)
        self.tokens_BT = torch.randint(subject.vocabulary, size, generator=self.generator).to(self.device)
        self.optimizer = language_optimizer(self.network, lr=LR)

    def step(self) -> None:
        self._step(self.tokens_BT)

    def small(self) -> None:
        self._step(self.tokens_BT[:, : SMALL + 1])

    def _step(self, tokens_BT: Tensor) -> None:
        language_step(self.network, self.optimizer, tokens_BT[:, :-1], tokens_BT[:, 1:])

    @torch.no_grad()
    def prefill(self) -> None:
        self.logits_BV, self.cache = self.model.step(self.tokens_BT[:, :-1], self.model.new_cache(self.subject.batch))

    @torch.no_grad()
    def decode(self) -> None:
        self.logits_BV, self.cache = self.model.step(self.tokens_BT[:, :1], self.cache)

    def inputs(self) -> Tensor:
        return self.tokens_BT[:, :-1]


def _bytes_on_disk(network: nn.Module) -> int:
    """Of the safetensors file of its weights, a shared tensor written once."""
    once = {id(tensor): (name, tensor) for name, tensor in network.named_parameters()}
    tensors = {name: tensor.detach().contiguous() for name, tensor in once.values()}
    tensors |= {name: buffer.contiguous() for name, buffer in network.named_buffers()}
    return len(save(tensors))
