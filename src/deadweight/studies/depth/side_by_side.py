"""Models of different depth side by side: curves by layer and by share of the depth, and the paper's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd

from deadweight.lab import Record, Records
from deadweight.report import Figure, Table, charts
from deadweight.statistics import Estimate
from deadweight.studies.depth.profile import useful_depth_of
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.models import model_name
from deadweight.studies.frame.quantity import Quantity
from deadweight.studies.frame.verdicts import Settled

BLOCKS = Quantity("useful depth", "blocks")
_CURVES = {
    "centered_similarity": "similarity of patches, mean subtracted",
    "r2_self": "own content left in a token (R² self)",
    "isi": "scrambling (ISI)",
    "ncm_accuracy": "readout accuracy",
}


class SideBySide(Derived):
    """What the profiles of several models say beside each other."""

    kind: ClassVar[str] = "side-by-side"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        return [
            Effect(
                "useful-depth", model_name(record.cell), "", BLOCKS,
                Estimate(found.layer, None, None, record.result["n"], None, 0.0, "tested from the last block down"),
                evidence=(record.key,), statement=f"The useful depth is {found.layer}.", shown=False,
            )
            for record in _profiles(records)
            if (found := useful_depth_of(record, margin)) is not None
        ]  # fmt: skip

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        profiles = _profiles(records)
        if not profiles:
            return []
        return [
            f"{len(profiles)} models on the same {profiles[0].result['n']} held-out images: the first charts and the "
            "first table put them side by side, the others show each alone."
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        profiles = _profiles(records)
        return _curves(profiles) if profiles else []

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        profiles = _profiles(records)
        useful = {pair.effect.evidence[0]: int(pair.effect.estimate.value) for pair in settled}
        caption = (
            "Boundaries of the phases are layers; in brackets where the middle 95 % of bootstrap replicates over "
            "images put them, which promises no coverage. Useful depth: blocks after which a readout is within the "
            "margin of the last, at every later block too. Onset: from there on tokens only lose their own content "
            "while the readout gains nothing. Regime: by ISI after the last block, below 0.002 communication "
            "collapse, above 0.018 chaotic diffusion, between them controlled consensus (thresholds ours)."
        )
        rows = [_row(record, useful.get(record.key)) for record in profiles]
        return [Table("Models side by side", pd.DataFrame(rows), caption)] if rows else []


def _profiles(records: Records) -> list[Record]:
    """The profiles, where there are several."""
    found = list(records.where(kind="profile"))
    return found if len(found) > 1 else []


def _curves(profiles: Sequence[Record]) -> list[Figure]:
    frames = []
    for record in profiles:
        frame = pd.DataFrame(record.result["table"])
        frame = frame[frame["layer"] <= record.result["depth"]]
        frames.append(frame.assign(model=model_name(record.cell), fraction=frame["layer"] / record.result["depth"]))
    whole = pd.concat(frames, ignore_index=True)
    found = []
    for column, title in _CURVES.items():
        if column not in whole or whole[column].isna().all():
            continue
        shown = whole[["model", "layer", "fraction", column]].dropna()
        shown[column] = shown[column].astype(float)
        for x, x_title in (("layer", "layer"), ("fraction", "share of the depth")):
            chart = charts.line(shown, x, column, color="model", x_title=x_title, y_title=title)
            caption = f"{title[:1].upper()}{title[1:]}, by {x_title}, one curve per model. The same images for all."
            found.append(Figure(f"depth-models-{column}-{x}", f"Models side by side: {title}", caption, chart))
    return found


def _row(record: Record, useful: int | None) -> dict[str, object]:
    result, depth = record.result, record.result["depth"]
    last = result["table"][depth]
    centred = {phase["name"]: phase for phase in result["phases"] if phase["curve"] == "centered_similarity"}

    def edge(phase: str, which: str) -> str:
        found = centred.get(phase)
        return "none" if found is None else f"{found[which]} ({found[f'{which}_low']} to {found[f'{which}_high']})"

    return {
        "model": model_name(record.cell), "blocks": depth, "cliff ends": edge("cliff", "last"),
        "climb starts": edge("climb", "first"), "useful depth": useful,
        "onset": "none" if result["onset"] is None else str(result["onset"]),
        "R² self": last.get("r2_self"), "R² all": last.get("r2_all"), "ISI": last.get("isi"),
        "regime": result["regime"], "readout": last.get("ncm_accuracy"), "probe": last.get("probe_accuracy"),
    }  # fmt: skip


__all__ = ["BLOCKS", "SideBySide"]
