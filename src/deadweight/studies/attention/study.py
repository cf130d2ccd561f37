"""The attention study (arXiv 2507.07247): which attention mechanism costs what in time, memory, energy, quality?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from deadweight.data import TextData, load_text
from deadweight.lab import Json
from deadweight.studies.attention.cache import CacheSize
from deadweight.studies.attention.costs import Costs
from deadweight.studies.attention.energy import Energy
from deadweight.studies.attention.paper import Paper
from deadweight.studies.attention.quality import Quality
from deadweight.studies.attention.scaling import Scaling
from deadweight.studies.attention.text import cut
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.study import Study

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
    version: ClassVar[int] = 3
    EXPERIMENTS: ClassVar[tuple[Experiment, ...]] = (
        Paper(), Quality(), Costs(), Scaling(), CacheSize(), Energy(),
    )  # fmt: skip
    TITLE: ClassVar[str] = "Attention: what each mechanism costs"
    QUESTION: ClassVar[str] = "Which attention mechanism costs what: time, memory, energy, quality?"

    mechanisms: tuple[str, ...] = Field(default=EIGHT, description="mechanisms to compare; sdpa is the reference")
    mechanism_options: dict[str, dict[str, Json]] = Field(
        default_factory=dict, description="options by mechanism, e.g. {sliding_window: {window: 128}}"
    )
    text: str = Field(default="embedded:stdlib", description="what the small GPT-2 learns, one token per byte")
    tokenizer: str | None = Field(
        default=None, description="cut the text with this model's tokenizer, e.g. hf:gpt2; default: one token per byte"
    )
    steps: int = Field(default=200, gt=0, description="training steps of each mechanism")
    batch: int = Field(default=2, gt=0, description="sequences per training step")
    length: int = Field(default=128, gt=0, description="tokens of a training sequence")
    dim: int = Field(default=64, gt=0, description="width of the small GPT-2")
    depth: int = Field(default=2, gt=0, description="blocks of the small GPT-2")
    heads: int = Field(default=4, gt=0, description="attention heads of the small GPT-2")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="one training run per mechanism and seed")
    timing_lengths: tuple[int, ...] = Field(default=(256, 1024, 2048), description="tokens of the timed layers")
    timing_dim: int = Field(default=128, gt=0, description="width of the timed layers")
    timing_heads: int = Field(default=4, gt=0, description="attention heads of the timed layers")
    timing_batches: tuple[int, ...] = Field(default=(1,), description="sequences in the timed layers")
    timing_dtypes: tuple[Literal["float32", "bfloat16"], ...] = Field(
        default=(), description="dtypes of the timed layers; default: that of the study"
    )
    timed_model: bool = Field(default=True, description="also time training steps of the whole small GPT-2")
    rounds: int = Field(default=6, ge=3, description="timed rounds, all mechanisms in each; an interval needs 6")
    metered_rounds: int = Field(default=2, ge=1, description="rounds under the energy meter, all mechanisms in each")
    checks: int = Field(default=10, gt=0, description="looks at the held-out loss while training")
    epoch: int | None = Field(default=None, gt=0, description="training steps to call an epoch, on the page")
    paper: bool = Field(default=False, description="also draw the paper's tables and figures, in its units")
    watts: float | None = Field(
        default=None, gt=0, description="power of what has no counter here, if you vouch for it: marked as modelled"
    )
    carbon_intensity: float | None = Field(
        default=None, gt=0, description="grams of CO2 equivalent per kWh, if you know it; without it there is no carbon"
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

    def active(self) -> Sequence[Experiment]:
        found = [Energy(self.carbon_intensity) if isinstance(one, Energy) else one for one in self.EXPERIMENTS]
        return [one for one in found if self.paper or not isinstance(one, Paper)]

    def training_options(self, name: str) -> dict[str, Json]:
        """The options a mechanism is trained with: those of short sequences, and over them what the user asks for."""
        return {**TRAINED.get(name, {}), **self.mechanism_options.get(name, {})}

    def timing_options(self, name: str) -> dict[str, Json]:
        """The options a layer is timed with."""
        return {**TIMED.get(name, {}), **self.mechanism_options.get(name, {})}

    def step_macs(self) -> int:
        """Roughly, of a training step of the small GPT-2 without its attention."""
        return self.batch * self.length * (36 * self.depth * self.dim**2 + 3 * self.data().vocabulary * self.dim)

    def data(self) -> TextData:
        """The text, in bytes or in a tokenizer's tokens; kept until :meth:`close`."""
        if self._text is None:
            text = load_text(self.text, limit=self.limit)
            self._text = text if self.tokenizer is None else cut(text, self.tokenizer)
        return self._text

    def close(self) -> None:
        self._text = None
