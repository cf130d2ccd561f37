"""The attention study (arXiv 2507.07247): which attention mechanism costs what in time, memory, energy, quality?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, PrivateAttr, model_validator

from deadweight.attention import MECHANISMS, Mechanism, mechanism
from deadweight.data import TextData, load_text
from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Json, Outcome, Records, Workbench
from deadweight.meters.clock import Stopwatch
from deadweight.models import torch_dtype
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.report import Section
from deadweight.studies import attention_findings, attention_page
from deadweight.studies.attention_timing import time_mechanisms
from deadweight.studies.study import Study
from deadweight.training import suitable_threads
from deadweight.training.language import VALIDATION_WINDOWS, train_language

EIGHT = ("eager", "sdpa", "flash", "gqa", "sliding_window", "linear", "lsh", "mla")
# On the short sequences of a small training run the defaults would hide what the mechanisms are about: a window longer
# than the text, as many groups as heads, more buckets than a sequence fills.
TRAINED: dict[str, dict[str, Json]] = {
    "gqa": {"groups": 2},
    "sliding_window": {"window": 32},
    "lsh": {"buckets": 8, "rounds": 2, "window": 16},
    "mla": {"rope_dim": 8},
}
TIMED: dict[str, dict[str, Json]] = {
    "gqa": {"groups": 2},
    "sliding_window": {"window": 256},
    "lsh": {"buckets": 64, "rounds": 4, "window": 64},
    "mla": {"rope_dim": 16},
}


class AttentionStudy(Study):
    """What attention mechanisms cost in time, memory and energy, and how well a small GPT-2 learns with each."""

    kind: ClassVar[str] = "attention"
    version: ClassVar[int] = 1

    mechanisms: tuple[str, ...] = Field(default=EIGHT, description="mechanisms to compare; sdpa is the reference")
    mechanism_options: dict[str, dict[str, Json]] = Field(
        default_factory=dict, description="options by mechanism, e.g. {sliding_window: {window: 128}}"
    )
    text: str = Field(default="embedded:stdlib", description="what the small GPT-2 learns, a token a byte")
    steps: int = Field(default=200, gt=0, description="training steps of each mechanism")
    batch: int = Field(default=2, gt=0, description="sequences a training step")
    length: int = Field(default=128, gt=0, description="tokens of a training sequence")
    dim: int = Field(default=64, gt=0, description="width of the small GPT-2")
    depth: int = Field(default=2, gt=0, description="blocks of the small GPT-2")
    heads: int = Field(default=4, gt=0, description="attention heads of the small GPT-2")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="one training run a mechanism and seed")
    timing_lengths: tuple[int, ...] = Field(default=(256, 1024, 2048), description="tokens of the timed layers")
    timing_dim: int = Field(default=128, gt=0, description="width of the timed layers")
    timing_heads: int = Field(default=4, gt=0, description="attention heads of the timed layers")
    timing_batch: int = Field(default=1, gt=0, description="sequences in the timed layers")
    rounds: int = Field(default=5, ge=3, description="timed rounds, all mechanisms in each")

    _text: TextData | None = PrivateAttr(default=None)

    @classmethod
    def for_audit(cls) -> AttentionStudy:
        """The settings of the audit, which are the defaults: about a minute."""
        return cls()

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name in ("mechanisms", "seeds", "timing_lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be listed, each once")
        if min(self.timing_lengths) < 1:
            raise ValueError("timing_lengths must be positive")
        return self

    def options_of(self, name: str, small: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
        """The options a mechanism is built with: those of this size, and over them what the user asks for."""
        return {**small.get(name, {}), **self.mechanism_options.get(name, {})}

    def cells(self) -> list[Cell]:
        """One training cell a mechanism and seed, one timing cell a length; refuses what cannot be built."""
        for name in (*self.mechanisms, *self.mechanism_options):
            MECHANISMS.get(name)
        for name in self.mechanisms:
            _causal(name, self.dim, self.heads, self.options_of(name, TRAINED))
            _causal(name, self.timing_dim, self.timing_heads, self.options_of(name, TIMED))
        text = self._bytes()
        short = min(len(text.train), len(text.validation))
        if short <= self.length:
            raise InputError(f"length {self.length} for a text of {short} bytes", expected="a shorter length")
        training: dict[str, Json] = {
            name: getattr(self, name) for name in ("text", "steps", "batch", "length", "dim", "depth", "heads", "lr")
        }
        training["windows"] = min(VALIDATION_WINDOWS, self.limit or VALIDATION_WINDOWS)
        macs = self.steps * self.batch * self.length * (36 * self.depth * self.dim**2 + 3 * 256 * self.dim)
        train = [
            Cell(
                "attention",
                "train",
                {"mechanism": name, "seed": self.seed + seed, "options": self.options_of(name, TRAINED), **training},
                sources={"text": text.fingerprint},
                version=self.version,
                seconds=1 + 0.008 * self.steps + macs / 3e10,
            )
            for name in self.mechanisms
            for seed in self.seeds
        ]
        return train + [self._timing_cell(length) for length in self.timing_lengths]

    def _timing_cell(self, length: int) -> Cell:
        layer: dict[str, Json] = {"dim": self.timing_dim, "heads": self.timing_heads, "batch": self.timing_batch}
        macs = self.timing_batch * self.timing_dim * (4 * self.timing_dim * length + length**2)
        return Cell(
            "attention",
            "time",
            {
                "length": length,
                **layer,
                "dtype": self.dtype,
                "rounds": self.rounds,
                "seed": self.seed,
                "mechanisms": {name: self.options_of(name, TIMED) for name in self.mechanisms},
            },
            version=self.version,
            exclusive=True,
            seconds=1 + (self.rounds + 4) * len(self.mechanisms) * macs / 4e9,
        )

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        return self._train(cell, bench) if cell.kind == "train" else self._time(cell, bench)

    def _train(self, cell: Cell, bench: Workbench) -> Outcome:
        want = cell.params
        text = self._bytes()
        shape = GPT2Config(text.vocabulary, want["length"], want["dim"], want["depth"], want["heads"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(want["seed"])
            model = GPT2(shape, lambda _: _causal(want["mechanism"], shape.width, shape.heads, want["options"]))
        watch = Stopwatch(torch.device(bench.device))
        with suitable_threads(model, bench.device) as threads:
            watch.start()
            run = train_language(
                model.to(bench.device),
                text.train,
                text.validation,
                steps=want["steps"],
                batch=want["batch"],
                length=want["length"],
                lr=want["lr"],
                seed=want["seed"],
                windows=want["windows"],
                note=bench.note,
            )
            watch.stop()
        attention: Any = model.blocks[0].attention
        result = {
            "losses": list(run.losses),
            "window_losses": list(run.windows),
            "held_out_loss": run.held_out,
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens": want["steps"] * want["batch"] * want["length"],
        }
        return Outcome(result, {"train_seconds": watch.seconds}, {"kernel": attention.kernel, "threads": threads})

    def _time(self, cell: Cell, bench: Workbench) -> Outcome:
        want = cell.params
        generator = torch.Generator().manual_seed(want["seed"])
        x_BTC = torch.randn(want["batch"], want["length"], want["dim"], generator=generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(want["seed"])
            layers = {
                name: _causal(name, want["dim"], want["heads"], options) for name, options in want["mechanisms"].items()
            }
        dtype = torch_dtype(want["dtype"])
        placed = {name: layer.to(bench.device, dtype) for name, layer in layers.items()}
        reference = attention_findings.reference(list(placed))
        with suitable_threads(placed[reference], bench.device) as threads:
            outcome = time_mechanisms(
                placed, x_BTC.to(bench.device, dtype), want["rounds"], reference=reference, note=bench.note
            )
        outcome.context["threads"] = threads
        return outcome

    def findings(self, records: Records) -> list[Finding]:
        return attention_findings.findings(records)

    def sections(self, records: Records) -> list[Section]:
        return attention_page.sections(records)

    def _bytes(self) -> TextData:
        if self._text is None:
            self._text = load_text(self.text)
        return self._text

    def close(self) -> None:
        self._text = None


def _causal(name: str, dim: int, heads: int, options: Mapping[str, Json]) -> Mechanism:
    """The mechanism, or a refusal where its options make it look ahead: a language model must not."""
    made = mechanism(name, dim, heads, **options)
    if not made.causal:
        raise InputError(f"mechanism {name!r} with causal = false", expected="causal attention", cure="leave it out")
    return made
