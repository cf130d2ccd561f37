"""A causal language model somebody brings, with a third of its MLPs taken out, refitted and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import pandas as pd
import torch

from deadweight.data import load_text
from deadweight.errors import SurgeryError
from deadweight.evaluation import nats_per_token, token_sequences
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import check_language, load_lm
from deadweight.meters import count
from deadweight.models import LanguageModel
from deadweight.report import Figure, Table
from deadweight.statistics import rise
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import language_digest
from deadweight.studies.frame.page import with_interval
from deadweight.studies.frame.quantity import RELATIVE_LOSS
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.mlp.surgeries import REMEDY, SURGERIES, WHAT, refitted

CALIBRATION, JUDGED, LENGTH = 64, 32, 256  # sequences, and tokens of one


class LanguageCuts(TypedDict):
    """The result: nats per token of each held-out sequence and what is left, intact and by cut.

    n: sequences judged on. calibration: tokens refitted on.
    """

    n: int
    calibration: int
    intact: dict[str, Json]
    cuts: dict[str, Json]


class CutLanguage(Experiment):
    """Narrows and shares the MLPs of a language model as it stands; what that adds to its loss on other text."""

    kind: ClassVar[str] = "cut-language"
    bytes_per_cell: ClassVar[int] = 10_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        if study.language is None:
            return []
        source, data = check_language(study.language), load_text(study.text)
        few = study.limit or CALIBRATION
        params: dict[str, Json] = {
            "language": study.language, "text": study.text, "dtype": study.dtype, "length": LENGTH,
            "calibration": max(4, min(CALIBRATION, few)), "judged": max(4, min(JUDGED, few)),
        }  # fmt: skip
        sources = {"language": language_digest(source), "text": data.fingerprint}
        return [Cell("mlp", self.kind, params, sources=sources, version=study.version, seconds=240)]

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        params: Any = cell.params
        bench.note("loading", 0.0)
        lm = load_lm(params["language"], dtype=params["dtype"], device=bench.device)
        text = load_text(params["text"])
        length = min(int(params["length"]), lm.max_length)
        learn = token_sequences(params["text"], text.train, lm.tokenizer, params["calibration"], length)
        judge = token_sequences(params["text"], text.validation, lm.tokenizer, params["judged"], length)
        return cut_and_refit(lm, learn, judge, bench)

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            self._effect(record, name, margin) for record in self.own(records) for name in record.result["cuts"]
        ]  # fmt: skip

    def _effect(self, record: Record, name: str, margin: float) -> Effect:
        params, intact, cut = record.cell.params, record.result["intact"], record.result["cuts"][name]
        removed = 1 - cut["parameters"] / intact["parameters"]
        arguments = {"text": params["text"], "parameters": round(1 - removed, 2)}
        return Effect(
            f"cut-language-{name}", str(params["language"]),
            f"{WHAT[name]}, refitted without labels, removes {removed:.0%} of the language model's parameters and",
            RELATIVE_LOSS, rise(intact["losses"], cut["losses"], margin), judged=True,
            remedy=Remedy(str(params["language"]), "compress", arguments, REMEDY), evidence=(record.key,),
        )  # fmt: skip

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        return [_lead(record) for record in self.own(records)]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        return []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        effects = {pair.effect.id: pair.effect for pair in settled}
        return [_table(record, effects) for record in self.own(records)]


def cut_and_refit(lm: LanguageModel, learn: torch.Tensor, judge: torch.Tensor, bench: Workbench) -> Outcome:
    """`lm` cut two ways, refitted on `learn` and judged on `judge`, both (sequences, tokens) of ids."""
    example = judge[:1].to(bench.device)
    notes: list[str] = []
    cuts: dict[str, Json] = {}
    result: LanguageCuts = {
        "n": len(judge), "calibration": learn.numel(),
        "intact": {"losses": nats_per_token(lm.model, judge), **count(lm.model, example).as_json()}, "cuts": cuts,
    }  # fmt: skip
    for done, (name, surgery) in enumerate(SURGERIES.items(), start=1):
        bench.note(f"{name}, refitted", done / (len(SURGERIES) + 1))
        try:
            small, target = refitted(surgery, lm.model, list(torch.split(learn, 4)))
        except SurgeryError as problem:
            notes.append(f"{name}: {problem.given}")
            continue
        cuts[name] = {"losses": nats_per_token(small, judge), "refit": target, **count(small, example).as_json()}
    return Outcome(dict(result), context={"notes": notes})


def _lead(record: Record) -> str:
    losses = [f"{name} {_mean(cut['losses']):.3f}" for name, cut in record.result["cuts"].items()]
    notes = [note[:1].upper() + note[1:] + "." for note in record.context.get("notes", [])]
    return " ".join([
        f"{record.cell.params['language']} was cut, refitted in closed form on {record.result['calibration']:,} tokens "
        f"of {record.cell.params['text']}, and not trained; its loss on other text is "
        f"{_mean(record.result['intact']['losses']):.3f} nats per token intact; {', '.join(losses)}.", *notes,
    ])  # fmt: skip


def _table(record: Record, effects: dict[str, Effect]) -> Table:
    rows = []
    for name, part in [("intact", record.result["intact"]), *record.result["cuts"].items()]:
        effect = effects.get(f"cut-language-{name}")
        rows.append(
            {
                "model": name,
                "parameters": int(part["parameters"]),
                "unique MLPs": part["unique_mlps"],
                "MACs": int(part["macs"]),
                "nats per token": round(_mean(part["losses"]), 4),
                "change": "–" if effect is None else with_interval(effect.estimate, effect.quantity),
            }
        )
    caption = f"On {record.result['n']} held-out sequences."
    return Table("The language model as it is and as it was cut", pd.DataFrame(rows), caption)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


__all__ = ["CutLanguage", "LanguageCuts", "cut_and_refit"]
