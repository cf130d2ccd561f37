"""Causal language models: what each block turns, and what is lost on other text without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.data import load_text
from deadweight.errors import InputError, SurgeryError
from deadweight.lab import Json, Outcome, Workbench
from deadweight.models import LanguageModel
from deadweight.probes import profile
from deadweight.surgery import drop_blocks

VERSION = 2  # of what a language cell does
CALIBRATION_TOKENS = 4096


def sequences(lm: LanguageModel, text: Tensor, count: int, length: int) -> Tensor:
    """(count, length) token ids of a text's beginning; refuses a text too short for that."""
    wanted = bytes(text[: 16 * count * length].tolist()).decode("utf-8", errors="replace")
    ids = torch.tensor(lm.tokenizer(wanted, add_special_tokens=False)["input_ids"][: count * length])
    if len(ids) < count * length:
        raise InputError(
            f"a text of {len(ids)} tokens", expected=f"{count} sequences of {length} tokens",
            cure="give more text, or ask for fewer or shorter sequences",
        )  # fmt: skip
    return ids.reshape(count, length)


def language(lm: LanguageModel, text: str, count: int, length: int, bench: Workbench) -> Outcome:
    """Block influence; loss without each block; blocks dropped by influence or by loss, with and without refit.

    By loss: without each block alone and the rest refitted, on training text the refit does not see (on text it does
    see, the blocks it overfits best would win). All losses that are told are of held-out text.
    """
    data = load_text(text)
    held = sequences(lm, data.validation, count, length)
    refitting = max(2, CALIBRATION_TOKENS // length)
    train = sequences(lm, data.train, refitting + count, length)
    calibration, choosing = list(torch.split(train[:refitting], 8)), train[refitting:]
    model = lm.model
    found = profile(model, list(torch.split(held, 8)), probes=["influence", "raw_similarity", "centered_similarity"])
    table = found.table().astype(object)
    influence = [float(value) for value in found.table()["influence"][1:-1]]
    depth = anatomy(model).depth
    blocks: list[Json] = []
    intact, notes = losses(model, held), []
    alone: dict[int, float] = {}
    for block in range(depth):
        bench.note(f"without block {block + 1} of {depth}", block / (depth + 1))
        try:
            shorter = drop_blocks(model, [block])
        except SurgeryError as problem:
            notes.append(problem.given)
            blocks.append({"block": block + 1, "losses": None})
            continue
        blocks.append({"block": block + 1, "losses": losses(shorter, held)})
        refitted = drop_blocks(model, [block], refit="stream", batches=calibration)
        alone[block] = float(np.mean(losses(refitted, choosing)))
    orders = {
        "influence": [int(block) for block in np.argsort(influence, kind="stable")],
        "measured": sorted(alone, key=lambda block: alone[block]),
    }
    drops: list[Json] = []
    for choice, order in orders.items() if alone else ():
        for number in sorted({1, max(1, depth // 10), max(1, depth // 5)}):
            cut = sorted(order[:number])
            bench.note(f"{number} blocks dropped by {choice}", depth / (depth + 1))
            refitted = drop_blocks(model, cut, refit="stream", batches=calibration)
            drops.append({
                "choice": choice, "blocks": [block + 1 for block in cut],
                "plain": losses(drop_blocks(model, cut), held), "refit": losses(refitted, held),
            })  # fmt: skip
    result: dict[str, Json] = {
        "n": count, "length": length, "depth": depth, "intact": intact, "blocks": blocks, "drops": drops,
        "influence": [value if math.isfinite(value) else None for value in influence],
        "table": table.where(table.notna(), None).to_dict("records"),
    }  # fmt: skip
    return Outcome(result, context={"notes": [*notes, *found.notes]})


def losses(model: nn.Module, ids: Tensor, size: int = 8) -> list[float]:
    """Nats a token of each sequence, predicted from what comes before it; float32."""
    device, found = next(model.parameters()).device, []
    with torch.inference_mode():
        for part in torch.split(ids, size):
            output: Any = model(part.to(device))
            logits = getattr(output, "logits", output)[:, :-1].float()
            given = logits.gather(-1, part[:, 1:, None].to(device))[..., 0]
            found += [float(value) for value in (logits.logsumexp(-1) - given).mean(1).cpu()]
    return found


def loss_added(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Relative rise of each sequence's loss."""
    return [(two - one) / one for one, two in zip(before, after, strict=True)]
