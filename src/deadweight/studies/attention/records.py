"""Finding one's way among the attention study's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deadweight.lab import Record, Records
from deadweight.studies.frame.quantity import NATS_PER_BYTE, NATS_PER_TOKEN, Quantity

MISSING = "missing"


def reference(names: Sequence[str]) -> str:
    """What the others are compared with: sdpa, or the first where it is absent."""
    return "sdpa" if "sdpa" in names else names[0]


def layers(records: Records) -> list[Record]:
    """The timed layers by length, of the first batch and dtype that was timed."""
    found = [record for record in records.where(kind="time") if record.cell.params["subject"] == "layer"]
    if not found:
        return []
    first = _group(found[0])
    return sorted((r for r in found if _group(r) == first), key=lambda record: int(record.cell.params["length"]))


def all_layers(records: Records) -> list[Record]:
    """The timed layers of every batch and dtype."""
    found = [record for record in records.where(kind="time") if record.cell.params["subject"] == "layer"]
    return sorted(found, key=lambda record: (_group(record), int(record.cell.params["length"])))


def _group(record: Record) -> tuple[int, str]:
    return int(record.cell.params["batch"]), str(record.cell.params["dtype"])


def timed_model(records: Records) -> Record | None:
    """The timed training steps of the whole model."""
    found = [record for record in records.where(kind="time") if record.cell.params["subject"] == "model"]
    return found[0] if found else None


def runs(records: Records, mechanism: str) -> list[Record]:
    """The training runs of a mechanism, by seed."""
    found = records.where(kind="train", mechanism=mechanism)
    return sorted(found, key=lambda record: int(record.cell.params["seed"]))


def trained(records: Records) -> list[str]:
    """The mechanisms that were trained, in the order of their cells."""
    return list(dict.fromkeys(record.cell.params["mechanism"] for record in records.where(kind="train")))


def held_out(records: Records, name: str) -> float:
    """Mean held-out loss over seeds, nats per token."""
    return float(np.mean([record.result["held_out_loss"] for record in runs(records, name)]))


def loss_quantity(records: Records) -> Quantity:
    """What losses are: a token is a byte unless the text was cut by a tokenizer."""
    found = records.where(kind="train")
    return NATS_PER_TOKEN if len(found) and found[0].cell.params.get("tokenizer") else NATS_PER_BYTE


def rounds(record: Record, part: str = "rounds") -> dict[str, list[float]]:
    """Seconds of every timed round, by mechanism; `part` may be ``prefill_rounds`` or ``decode_rounds``."""
    found = record.measured["mechanisms"]
    return {name: list(found[name][part]) for name in found if found[name].get(part)}


def joules(found: Any) -> dict[str, Any] | None:
    """The energy reading of a step of one mechanism's measurements; None where no metered round was run."""
    metered = found.get("metered")
    return None if metered is None else dict(metered["energy"])


def number(reading: Mapping[str, Any] | None, scale: float = 1.0) -> float | str:
    """A reading's value in another unit, or the word for none."""
    return MISSING if reading is None or reading["value"] is None else float(reading["value"]) * scale


def milliseconds(found: Any, part: str = "seconds") -> float | None:
    """A median time of one mechanism's measurements in milliseconds; None where it was not taken."""
    return None if found.get(part) is None else 1000 * float(found[part]["value"])


def by_length(timed: Sequence[Record]) -> dict[str, dict[int, list[float]]]:
    """Seconds of every round by mechanism and length, of the mechanisms timed at two lengths or more."""
    gathered: dict[str, dict[int, list[float]]] = {}
    for record in timed:
        for name, seconds in rounds(record).items():
            gathered.setdefault(name, {})[int(record.cell.params["length"])] = seconds
    return {name: found for name, found in gathered.items() if len(found) > 1}
