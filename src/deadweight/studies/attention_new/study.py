"""The attention study (arXiv 2507.07247): which attention mechanism costs what in time, memory, energy, quality?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from deadweight.studies.attention_race import race
from deadweight.studies.attention_records import reference as reference_of
from deadweight.studies.attention_subject import Subject, causal
from deadweight.studies.attention_text import cut
from deadweight.studies.attention_timing import outcome
from deadweight.studies.study import Study
from pydantic import Field, PrivateAttr, model_validator

from deadweight.attention import MECHANISMS
from deadweight.data import TextData, load_text
from deadweight.errors import InputError
from deadweight.lab import Cell, Finding, Json, Outcome, Records, Workbench
from deadweight.meters import ModelledEnergy, Reading, energy_devices, idle_power, machine_peak, measure
from deadweight.models import torch_dtype
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.report import Section
from deadweight.studies import attention_findings, attention_page
from deadweight.training import suitable_threads
from deadweight.training.language import VALIDATION_WINDOWS, train_language

IDLE_SECONDS = 5.0  # at rest before a race, where there is something to read
PEAK_SECONDS = 0.2  # of matrix products before a race
BESIDE_OTHERS = Reading.missing(
    "J",
    "training runs beside other work, whose joules a counter cannot tell apart",
    "see the timing cell of the whole model: joules a training step, alone on the machine",
)
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
    version: ClassVar[int] = 2

    mechanisms: tuple[str, ...] = Field(default=EIGHT, description="mechanisms to compare; sdpa is the reference")
    mechanism_options: dict[str, dict[str, Json]] = Field(
        default_factory=dict, description="options by mechanism, e.g. {sliding_window: {window: 128}}"
    )
    text: str = Field(default="embedded:stdlib", description="what the small GPT-2 learns, a token a byte")
    tokenizer: str | None = Field(
        default=None, description="cut the text with this model's tokenizer, e.g. hf:gpt2; default: a token a byte"
    )
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
    timing_batches: tuple[int, ...] = Field(default=(1,), description="sequences in the timed layers")
    timing_dtypes: tuple[Literal["float32", "bfloat16"], ...] = Field(
        default=(), description="dtypes of the timed layers; default: that of the study"
    )
    timed_model: bool = Field(default=True, description="also time training steps of the whole small GPT-2")
    rounds: int = Field(default=5, ge=3, description="timed rounds, all mechanisms in each")
    metered_rounds: int = Field(default=2, ge=1, description="rounds under the energy meter, all mechanisms in each")
    checks: int = Field(default=10, gt=0, description="looks at the held-out loss while training")
    epoch: int | None = Field(default=None, gt=0, description="training steps to call an epoch, on the page")
    paper: bool = Field(default=False, description="also draw the paper's tables and figures, in its units")
    watts: float | None = Field(
        default=None, gt=0, description="power of what has no counter here, if you vouch for it: marked as modelled"
    )
    carbon_intensity: float | None = Field(
        default=None, gt=0, description="grams of CO2 equivalent a kWh, if you know it; without it there is no carbon"
    )

    _text: TextData | None = PrivateAttr(default=None)

    @classmethod
    def for_audit(cls) -> AttentionStudy:
        """The settings of the audit: the defaults, with one metered round. About a minute."""
        return cls(metered_rounds=1)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name in ("mechanisms", "seeds", "timing_lengths", "timing_batches"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be listed, each once")
        for name in ("timing_lengths", "timing_batches"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be positive")
        return self

    def options_of(self, name: str, small: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
        """The options a mechanism is built with: those of this size, and over them what the user asks for."""
        return {**small.get(name, {}), **self.mechanism_options.get(name, {})}

    def cells(self) -> list[Cell]:
        """One training cell a mechanism and seed, one timing cell a length; refuses what cannot be built."""
        for name in (*self.mechanisms, *self.mechanism_options):
            MECHANISMS.get(name)
        for name in self.mechanisms:
            causal(name, self.dim, self.heads, self.options_of(name, TRAINED))
            causal(name, self.timing_dim, self.timing_heads, self.options_of(name, TIMED))
        text = self._bytes()
        short = min(len(text.train), len(text.validation))
        if short <= self.length:
            raise InputError(f"length {self.length} for a text of {short} tokens", expected="a shorter length")
        training: dict[str, Json] = {
            name: getattr(self, name) for name in ("text", "steps", "batch", "length", "dim", "depth", "heads", "lr")
        }
        training |= {"windows": min(VALIDATION_WINDOWS, self.limit or VALIDATION_WINDOWS), "checks": self.checks}
        training |= {} if self.tokenizer is None else {"tokenizer": self.tokenizer}
        training |= {} if self.epoch is None else {"epoch": self.epoch}
        train = [
            Cell(
                "attention",
                "train",
                {"mechanism": name, "seed": self.seed + seed, "options": self.options_of(name, TRAINED), **training},
                sources={"text": text.fingerprint},
                version=self.version,
                seconds=1 + self.steps * (0.008 + self._step_macs(text.vocabulary) / 3e10),
            )
            for name in self.mechanisms
            for seed in self.seeds
        ]
        return [*train, *self._timing_cells(text.vocabulary)]

    def _step_macs(self, vocabulary: int) -> int:
        return self.batch * self.length * (36 * self.depth * self.dim**2 + 3 * vocabulary * self.dim)

    def _timing_cells(self, vocabulary: int) -> list[Cell]:
        """The whole model at the length it is trained at, then single layers by length, batch and dtype."""
        turns = (self.rounds + 2 * self.metered_rounds + 3) * len(self.mechanisms)
        shape: dict[str, Json] = {"depth": self.depth, "vocabulary": vocabulary}
        model = {"dim": self.dim, "heads": self.heads, **shape}
        layer = {"dim": self.timing_dim, "heads": self.timing_heads, **shape}
        cells = []
        if self.timed_model:
            want: dict[str, Json] = {"length": self.length, "subject": "model", **model, "batch": self.batch}
            seconds = turns * (0.01 + self._step_macs(vocabulary) / 3e10)
            cells.append(self._timing_cell({**want, "dtype": self.dtype}, TRAINED, seconds))
        for dtype in self.timing_dtypes or (self.dtype,):
            for batch in self.timing_batches:
                for length in self.timing_lengths:
                    want = {"length": length, "subject": "layer", **layer, "batch": batch, "dtype": dtype}
                    macs = batch * self.timing_dim * (4 * self.timing_dim * length + length**2)
                    cells.append(self._timing_cell(want, TIMED, turns * macs / 4e9))
        return cells

    def _timing_cell(self, want: dict[str, Json], small: Mapping[str, Mapping[str, Json]], seconds: float) -> Cell:
        measuring: dict[str, Json] = {"rounds": self.rounds, "metered_rounds": self.metered_rounds, "seed": self.seed}
        if self.watts is not None:
            measuring["watts"] = self.watts
        mechanisms = {name: self.options_of(name, small) for name in self.mechanisms}
        return Cell(
            "attention",
            "time",
            {**want, **measuring, "mechanisms": mechanisms},
            version=self.version,
            exclusive=True,
            seconds=2 + 0.3 * len(self.mechanisms) + seconds,
        )

    def run(self, cell: Cell, bench: Workbench) -> Outcome:
        return self._train(cell, bench) if cell.kind == "train" else self._time(cell, bench)

    def _train(self, cell: Cell, bench: Workbench) -> Outcome:
        want = cell.params
        text = self._bytes()
        shape = GPT2Config(text.vocabulary, want["length"], want["dim"], want["depth"], want["heads"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(want["seed"])
            model = GPT2(shape, lambda _: causal(want["mechanism"], shape.width, shape.heads, want["options"]))
        with suitable_threads(model, bench.device) as threads, measure(device=bench.device) as cost:
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
                checks=want["checks"],
                note=bench.note,
            )
        attention: Any = model.blocks[0].attention
        result = {
            "losses": list(run.losses),
            "held_out_curve": [list(point) for point in run.curve],
            "window_losses": list(run.windows),
            "held_out_loss": run.held_out,
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens": want["steps"] * want["batch"] * want["length"],
        }
        used = {**cost.as_json(), "energy": BESIDE_OTHERS.as_json()}
        return Outcome(
            result, {"train_seconds": cost.seconds, "cost": used}, {"kernel": attention.kernel, "threads": threads}
        )

    def _time(self, cell: Cell, bench: Workbench) -> Outcome:
        want = cell.params
        shape = {n: want[n] for n in ("subject", "dim", "heads", "depth", "vocabulary", "batch", "length", "dtype")}
        subjects = {
            name: Subject(name, options, **shape, seed=want["seed"], device=bench.device)
            for name, options in want["mechanisms"].items()
        }
        reference = reference_of(list(subjects))
        small = replace(subjects[reference], length=1, device="cpu").build().network
        found = energy_devices()
        model = [] if self.watts is None else [ModelledEnergy(self.watts, "the user of this study")]
        readable = [device for device in found if device.provenance != "missing"]
        idle = idle_power([*(readable if model else found), *model], seconds=IDLE_SECONDS)
        with suitable_threads(small, bench.device) as threads:
            peak = machine_peak(torch_dtype(want["dtype"]) or torch.float32, device=bench.device, seconds=PEAK_SECONDS)
            racers = race(
                subjects,
                rounds=want["rounds"],
                metered=want["metered_rounds"],
                threads=threads,
                devices=None if readable else found,  # counters are opened by the process that reads them
                model=model,
                window=max((device.shortest for device in readable), default=0.0),
                idle=idle,
                note=bench.note,
            )
        tokens = want["batch"] * want["length"]
        result = outcome(racers, reference=reference, tokens=tokens, peak=peak, idle=idle)
        result.context["threads"] = threads
        return result

    def findings(self, records: Records) -> list[Finding]:
        return attention_findings.findings(records, carbon_intensity=self.carbon_intensity)

    def sections(self, records: Records) -> list[Section]:
        return attention_page.sections(records, paper=self.paper)

    def _bytes(self) -> TextData:
        if self._text is None:
            text = load_text(self.text, limit=self.limit)
            self._text = text if self.tokenizer is None else cut(text, self.tokenizer)
        return self._text

    def close(self) -> None:
        self._text = None
