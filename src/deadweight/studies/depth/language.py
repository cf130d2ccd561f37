"""Causal language models: what each block changes, and what is lost on other text without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.data import load_text
from deadweight.errors import SurgeryError
from deadweight.evaluation import nats_per_token, token_sequences
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import check_language, load_lm
from deadweight.models import LanguageModel
from deadweight.probes import profile
from deadweight.report import Figure
from deadweight.statistics import rise
from deadweight.studies.depth.cells import plain_rows
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import ModelRef, language_digest
from deadweight.studies.frame.page import interval_plots
from deadweight.studies.frame.quantity import RELATIVE_LOSS
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.surgery import drop_blocks

VERSION = 3  # sequences are drawn over the whole text
CALIBRATION_TOKENS = 4096
TOGETHER = 4  # neighbouring windows that count as one: earlier versions took the beginning of the text
BY = {"measured": "by measured loss", "influence": "by influence"}
HOW = {"plain": "as it is", "refit": "the rest refitted"}


class LanguageBlocks(TypedDict):
    """The result; losses are nats per token of each held-out sequence.

    intact: of the whole model. blocks: ``{block, losses}``, counted from 1, None for one that cannot be removed.
    drops: ``{choice, blocks, plain, refit}``, several blocks at once. influence: 1 − cosine of a block's input and
    output. table: the profile's rows.
    """

    n: int
    length: int
    depth: int
    intact: list[float]
    blocks: list[Json]
    drops: list[Json]
    influence: list[float | None]
    table: list[Json]


class Language(Experiment):
    """Each block of a language model out in turn; a few dropped by influence or by loss, with and without refit."""

    kind: ClassVar[str] = "language"
    bytes_per_cell: ClassVar[int] = 26_000

    def cells(self, study: Any, subject: ModelRef | None) -> list[Cell]:
        if subject is not None or study.language is None:
            return []
        source = check_language(study.language)
        params: dict[str, Json] = {"language": study.language, "text": study.text, "sequences": study.sequences,
                                   "length": study.length, "dtype": study.dtype, "seed": study.seed}  # fmt: skip
        sources = {"language": language_digest(source), "text": load_text(study.text).fingerprint}
        seconds = study.sequences * study.length / 4.0
        return [Cell(study.kind, self.kind, params, sources=sources, version=VERSION, seconds=seconds)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        lm = load_lm(str(cell.params["language"]), dtype=study.dtype, device=bench.device)
        return without_blocks(lm, study.text, study.sequences, study.length, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            effect
            for record in self.own(records)
            for effect in (*block_effects(record, margin), *_drop_effects(record, margin))
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        return [
            figure
            for record in self.own(records)
            for figure in _figures(record, [p.effect for p in settled if record.key in p.effect.evidence], margin)
        ]


def without_blocks(lm: LanguageModel, text: str, count: int, length: int, bench: Workbench) -> Outcome:
    """Block influence; loss without each block; blocks dropped by influence or by loss, with and without refit.

    By loss: without each block alone and the rest refitted, on training text the refit does not see (on text it does
    see, the blocks it overfits best would win). All losses in the result are of held-out text. Sequences come from all
    over the texts.
    """
    data, seed = load_text(text), int(bench.cell.params.get("seed", 0))
    held = token_sequences(text, data.validation, lm.tokenizer, count, length, seed=seed)
    refitting = max(2, CALIBRATION_TOKENS // length)
    train = token_sequences(text, data.train, lm.tokenizer, refitting + count, length, seed=seed)
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    calibration, choosing = list(torch.split(train[:refitting], 8)), train[refitting:]
    model = lm.model
    found = profile(model, list(torch.split(held, 8)), probes=["influence", "raw_similarity", "centered_similarity"])
    influence = [float(value) for value in found.table()["influence"][1:-1]]
    depth = anatomy(model).depth
    blocks: list[Json] = []
    intact, notes = nats_per_token(model, held), list[str]()
    alone: dict[int, float] = {}
    for block in range(depth):
        bench.note(f"without block {block + 1} of {depth}", block / (depth + 1))
        try:
            shorter = drop_blocks(model, [block])
        except SurgeryError as problem:
            notes.append(problem.given)
            blocks.append({"block": block + 1, "losses": None})
            continue
        blocks.append({"block": block + 1, "losses": nats_per_token(shorter, held)})
        refitted, remark = _refitted(model, [block], calibration)
        notes += [remark] if remark and remark not in notes else []
        alone[block] = float(np.mean(nats_per_token(refitted, choosing)))
    orders = {
        "influence": [int(block) for block in np.argsort(influence, kind="stable")],
        "measured": sorted(alone, key=lambda block: alone[block]),
    }
    drops: list[Json] = []
    for choice, order in orders.items() if alone else ():
        for number in sorted({1, max(1, depth // 10), max(1, depth // 5)}):
            cut = sorted(order[:number])
            bench.note(f"{number} blocks dropped by {choice}", depth / (depth + 1))
            refitted, _ = _refitted(model, cut, calibration)
            drops.append({
                "choice": choice, "blocks": [block + 1 for block in cut],
                "plain": nats_per_token(drop_blocks(model, cut), held), "refit": nats_per_token(refitted, held),
            })  # fmt: skip
    result: LanguageBlocks = {
        "n": count, "length": length, "depth": depth, "intact": intact, "blocks": blocks, "drops": drops,
        "influence": [value if math.isfinite(value) else None for value in influence],
        "table": plain_rows(found.table()),
    }  # fmt: skip
    return Outcome(dict(result), context={"notes": [*notes, *found.notes]})


def _refitted(model: nn.Module, blocks: list[int], calibration: list[Tensor]) -> tuple[nn.Module, str]:
    """Without `blocks`, the rest refitted where it can be, and what is to be said where it cannot.

    A norm between a block's MLP and the stream (Gemma 3, OLMo 2), or experts in place of an MLP, leave nothing that a
    refit towards the stream could solve for.
    """
    try:
        return drop_blocks(model, blocks, refit="stream", batches=calibration), ""
    except SurgeryError as problem:
        return drop_blocks(model, blocks), f"nothing was refitted: {problem.given}"


def neighbours(record: Record) -> list[int] | None:
    """Clusters of the held-out sequences: none where they come from all over the text, runs of neighbours where they
    are its beginning, as earlier versions took it."""
    if record.cell.version >= VERSION:
        return None
    return [number // TOGETHER for number in range(len(record.result["intact"]))]


def block_effects(record: Record, margin: float) -> list[Effect]:
    """The relative rise of the loss without each block."""
    result, source = record.result, str(record.cell.params["language"])
    return [
        Effect(
            f"language-block-{entry['block']}", source,
            f"Removing block {entry['block']} of {result['depth']} of the language model", RELATIVE_LOSS,
            rise(result["intact"], entry["losses"], margin, clusters=neighbours(record)), judged=True,
            evidence=(record.key,), series="language blocks",
            remedy=Remedy(source, "drop_blocks", {"indices": [entry["block"] - 1]}, "Remove the block."),
        )
        for entry in result["blocks"]
        if entry["losses"] is not None
    ]  # fmt: skip


def _drop_effects(record: Record, margin: float) -> list[Effect]:
    result, source = record.result, str(record.cell.params["language"])
    return [
        Effect(
            f"language-drop-{drop['choice']}-{len(drop['blocks'])}-{how}", source,
            f"Dropping {len(drop['blocks'])} blocks, chosen {BY[drop['choice']]}, {HOW[how]},", RELATIVE_LOSS,
            rise(result["intact"], drop[how], margin, clusters=neighbours(record)), evidence=(record.key,),
            shown=False,
        )
        for drop in result["drops"]
        for how in HOW
    ]  # fmt: skip


def _figures(record: Record, effects: Sequence[Effect], margin: float) -> list[Figure]:
    result, params = record.result, record.cell.params
    blocks = [effect for effect in effects if effect.series]
    drops = [effect for effect in effects if not effect.series]
    caption = (
        f"{params['language']}: each block left out in turn; {result['n']} sequences of {result['length']} tokens of "
        f"{params['text']}. The whole model's loss is {np.mean(result['intact']):.3f} nats per token."
    )
    names = {effect.id: effect.id.removeprefix("language-").replace("-", " ") for effect in blocks}
    names |= {effect.id: effect.removed.removeprefix("Dropping ").rstrip(",") for effect in drops}
    found = interval_plots("depth-language", blocks, margin, title="A language model without each block",
                           caption=caption, names=names)  # fmt: skip
    caption = (
        "Several blocks dropped at once, chosen by influence, or by the loss on training text of each left out alone "
        "and the rest refitted; then the rest as it is, or refitted in closed form on training text."
    )
    more = interval_plots("depth-language-drops", drops, title="A language model with fewer blocks", caption=caption,
                          names=names)  # fmt: skip
    return [*found, *more]


__all__ = ["Language", "LanguageBlocks", "block_effects", "neighbours", "without_blocks"]
