"""What is measured: each quantity with its unit, how people read it, and the words for losing or gaining some of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A kind of measurement. Two effects can stand in one plot, and one study's judgement, only in the same unit.

    name:    unique, e.g. ``accuracy``.
    unit:    as ``findings.json`` has it; :mod:`deadweight.report.wording` knows how each is written.
    lost:    what a sentence says after the part that was removed, where something is lost; ``{}`` is the amount.
    gained:  the same where something is gained.
    same:    the same where nothing changes.
    removal: whether it is a loss from removing something (*before* minus *after*), and so can be judged.
    """

    name: str
    unit: str
    lost: str = ""
    gained: str = ""
    same: str = ""
    removal: bool = False


ACCURACY = Quantity(
    "accuracy", "accuracy", "costs {} of accuracy", "gains {} of accuracy", "leaves accuracy as it is", removal=True
)
AGREEMENT = Quantity(
    "agreement", "share", "changes {} of the model's predictions", "changes {} of the model's predictions",
    "changes none of the model's predictions", removal=True,
)  # fmt: skip
RELATIVE_LOSS = Quantity(
    "relative rise of the loss", "fraction", "raises the loss by {}", "lowers the loss by {}",
    "leaves the loss as it is", removal=True,
)  # fmt: skip

SHARE = Quantity("share", "share")
COSINE = Quantity("cosine", "cosine")
LENGTH_RATIO = Quantity("ratio of lengths", "ratio")
SPEED = Quantity("speed", "× speed")
TIME_RATIO = Quantity("time ratio", "× time")
EXPONENT = Quantity("exponent", "exponent")
TOKENS = Quantity("length", "tokens")
SECONDS = Quantity("time", "s")
JOULES = Quantity("energy", "J")
NATS_PER_TOKEN = Quantity("loss per token", "nats per token")
NATS_PER_BYTE = Quantity("loss per byte", "nats per byte")

__all__ = [
    "ACCURACY",
    "AGREEMENT",
    "COSINE",
    "EXPONENT",
    "JOULES",
    "LENGTH_RATIO",
    "NATS_PER_BYTE",
    "NATS_PER_TOKEN",
    "RELATIVE_LOSS",
    "SECONDS",
    "SHARE",
    "SPEED",
    "TIME_RATIO",
    "TOKENS",
    "Quantity",
]
