"""A causal language model somebody brings, with a third of its MLPs taken out, refitted and not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from deadweight.data import load_text, token_sequences
from deadweight.errors import SurgeryError
from deadweight.lab import Cell, Estimate, Finding, Json, Outcome, Record, Records, Workbench, bootstrap_mean
from deadweight.meters import count
from deadweight.models import LanguageModel, check_language, load_lm
from deadweight.report import Table
from deadweight.studies.icl_cells import digest
from deadweight.studies.mlp_cut import SURGERIES, refitted

KIND = "cut-language"
CALIBRATION, JUDGED, LENGTH = 64, 32, 256  # sequences, and tokens of one
DONE = {
    "grouped": "Letting every two neighbouring blocks of the language model share one MLP of both's best units",
    "shallow": "Keeping the two thirds of each MLP's units of the language model that do most",
}


def cell_of(language: str, text: str, dtype: str, version: int, limit: int | None = None) -> Cell:
    """The cell of a language model; what is wrong with the sources is said now."""
    source, data = check_language(language), load_text(text)
    params: dict[str, Json] = {
        "language": language, "text": text, "dtype": dtype, "length": LENGTH,
        "calibration": max(4, min(CALIBRATION, limit or CALIBRATION)),
        "judged": max(4, min(JUDGED, limit or JUDGED)),
    }  # fmt: skip
    sources = {"language": digest(Path(source.name)) or source.text, "text": data.fingerprint}
    return Cell("mlp", KIND, params, sources=sources, version=version, seconds=240)


def cut_language(cell: Cell, bench: Workbench) -> Outcome:
    """Nats a token of each held-out sequence, intact and cut."""
    params: Any = cell.params
    bench.note("loading", 0.0)
    lm = load_lm(params["language"], dtype=params["dtype"], device=bench.device)
    text = load_text(params["text"])
    length = min(int(params["length"]), lm.max_length)

    def sequences(part: Tensor, number: int) -> Tensor:
        return token_sequences(params["text"], part, lm.tokenizer, number, length)

    learn, judge = sequences(text.train, params["calibration"]), sequences(text.validation, params["judged"])
    example = judge[:1].to(bench.device)
    result: dict[str, Json] = {
        "n": len(judge), "calibration": learn.numel(),
        "intact": {"losses": losses(lm, judge), **count(lm.model, example).as_json()},
    }  # fmt: skip
    cuts: dict[str, Json] = {}
    notes: list[str] = []
    for done, (name, surgery) in enumerate(SURGERIES.items(), start=1):
        bench.note(f"{name}, refitted", done / (len(SURGERIES) + 1))
        try:
            small, target = refitted(surgery, lm.model, list(torch.split(learn, 4)))
        except SurgeryError as problem:
            notes.append(f"{name}: {problem.given}")
            continue
        found = losses(LanguageModel(small, lm.tokenizer, lm.name, lm.max_length), judge)
        cuts[name] = {"losses": found, "refit": target, **count(small, example).as_json()}
    return Outcome({**result, "cuts": cuts}, context={"notes": notes})


def losses(lm: LanguageModel, sequences: Tensor) -> list[Json]:
    """(N,) mean nats a token of each sequence."""
    found: list[Json] = []
    model: Any = lm.model
    with torch.inference_mode():
        for row in sequences:
            ids = row[None].to(next(model.parameters()).device)
            logits = model(ids, use_cache=False).logits[0, :-1].float()
            found.append(float(F.cross_entropy(logits, ids[0, 1:])))
    return found


def findings(records: Records, margin: float, command: str) -> list[Finding]:
    """What each cut costs, as a share of the loss: the accepted margin is one per cent of it."""
    found = []
    for record in records.where(kind=KIND):
        for name, cut in record.result["cuts"].items():
            estimate = loss_of(record, name, margin)
            removed = 1 - cut["parameters"] / record.result["intact"]["parameters"]
            verb = "raises" if estimate.value > 0 else "lowers"
            claim = (
                f"{DONE[name]}, refitted without labels, removes {removed:.0%} of the parameters and {verb} the loss "
                f"on held-out text by {abs(estimate.value):.1%}."
            )
            found.append(
                Finding.of(
                    f"mlp-cut-language-{name}", "mlp", claim, estimate, "share", margin=margin,
                    evidence=[record.key], command=command,
                )
            )  # fmt: skip
    return found


def loss_of(record: Record, name: str, margin: float = 0.0) -> Estimate:
    """(after − before) / mean loss before, a bootstrap over sequences."""
    before, after = record.result["intact"]["losses"], record.result["cuts"][name]["losses"]
    mean = sum(before) / len(before)
    return bootstrap_mean([(new - old) / mean for old, new in zip(before, after, strict=True)], margin)


def lead(record: Record) -> str:
    """What the page says of it."""
    before = record.result["intact"]["losses"]
    said = [f"{name} {_mean(cut['losses']):.3f}" for name, cut in record.result["cuts"].items()]
    notes = [note[:1].upper() + note[1:] + "." for note in record.context.get("notes", [])]
    return " ".join([
        f"{record.cell.params['language']} was cut, refitted in closed form on {record.result['calibration']:,} tokens "
        f"of {record.cell.params['text']}, and not trained; its loss on other text is {_mean(before):.3f} nats a token "
        f"intact; {', '.join(said)}.", *notes,
    ])  # fmt: skip


def table(record: Record) -> Table:
    """Intact and cut."""
    rows = []
    for name, part in [("intact", record.result["intact"]), *record.result["cuts"].items()]:
        found = loss_of(record, name) if name != "intact" else None
        rows.append(
            {
                "model": name,
                "parameters": int(part["parameters"]),
                "unique MLPs": part["unique_mlps"],
                "MACs": int(part["macs"]),
                "nats a token": round(_mean(part["losses"]), 4),
                "change": "–" if found is None else f"{found.value:+.1%} ({found.low:+.1%} … {found.high:+.1%})",
            }
        )
    caption = f"On {record.result['n']} held-out sequences; intervals by bootstrap over them, 95 %."
    return Table("The language model as it is and as it was cut", pd.DataFrame(rows), caption)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
