"""The depth study's experiments on the page, and models side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from deadweight.lab import Estimate, Json, Record, Records, accuracy_loss, bootstrap_mean
from deadweight.report import Figure, Table, charts
from deadweight.studies.answers import from_bits
from deadweight.studies.depth_language import loss_added
from deadweight.studies.depth_verdicts import points, useful

_CURVES = {
    "centered_similarity": "similarity of patches, mean subtracted",
    "r2_self": "own content left in a token (R² self)",
    "isi": "scrambling (ISI)",
    "ncm_accuracy": "readout accuracy",
}


def figures(records: Records, margin: float) -> list[Figure]:
    """One or two figures an experiment that has its record."""
    found: list[Figure] = []
    for kind, of in (("positions", _positions), ("shorten", _shorten), ("language", _language)):
        of_kind = list(records.where(kind=kind))
        for record in of_kind:
            found += [of_model(figure, record, len(of_kind)) for figure in of(record, margin)]
    return found


def of_model(figure: Figure, record: Record, models: int) -> Figure:
    """The figure, told apart from those of other models where there are any."""
    if models < 2:
        return figure
    name = unique_names([record])[0]
    return dataclasses.replace(figure, id=f"{figure.id}-{record.key[:6]}", title=f"{name}: {figure.title}")


def leads(records: Records) -> list[str]:
    """A sentence or two an experiment of a single model; of several, the tables say it."""
    said = []
    for kind, of in (("cls", _cls_lead), ("exit", _exit_lead)):
        of_kind = list(records.where(kind=kind))
        said += [of(record) for record in of_kind] if len(of_kind) == 1 else []
    return [sentence for sentence in said if sentence]


def tables(records: Records, margin: float) -> list[Table]:
    """CLS ablation, early exits."""
    found = []
    rows = [row for record in records.where(kind="cls") for row in _cls_rows(record)]
    if rows:
        caption = (
            "Accuracy with the [CLS] token hidden from all patches, and of readouts of the final layer that use CLS or "
            "the mean patch. Intervals are 95 %, of the difference from the first row of its kind, paired by image."
        )
        found.append(Table("What CLS is for", pd.DataFrame(rows), caption))
    rows = [_exit_row(record) for record in records.where(kind="exit")]
    if rows:
        caption = (
            "The model is left after the block named and read by a linear readout fitted there (ridge, on training "
            "images). Speed: seconds of a batch through either, in turns, the median of seven ratios."
        )
        found.append(Table("Leaving early", pd.DataFrame(rows), caption))
    return found


def comparison(profiles: list[Record], margin: float) -> tuple[list[Figure], list[Table]]:
    """Models of different depth side by side: curves by layer and by fraction of depth, and the paper's table."""
    names = unique_names(profiles)
    frames = []
    for name, record in zip(names, profiles, strict=True):
        frame = pd.DataFrame(record.result["table"])
        frame = frame[frame["layer"] <= record.result["depth"]]
        frames.append(frame.assign(model=name, fraction=frame["layer"] / record.result["depth"]))
    whole = pd.concat(frames, ignore_index=True)
    found = []
    for column, title in _CURVES.items():
        if column not in whole or whole[column].isna().all():
            continue
        shown = whole[["model", "layer", "fraction", column]].dropna()
        shown[column] = shown[column].astype(float)
        for x, x_title in (("layer", "layer"), ("fraction", "share of the depth")):
            chart = charts.line(shown, x, column, color="model", x_title=x_title, y_title=title)
            caption = f"{title[:1].upper()}{title[1:]}, by {x_title}, one curve a model. The same images for all."
            found.append(Figure(f"depth-models-{column}-{x}", f"Models side by side: {title}", caption, chart))
    rows = [_model_row(name, record, margin) for name, record in zip(names, profiles, strict=True)]
    caption = (
        "Boundaries of the phases are layers, with 95 % bootstrap intervals over images. Onset: from there on tokens "
        "only lose their own content while the readout gains nothing. Regime: by ISI after the last block, below 0.002 "
        "communication collapse, above 0.018 chaotic diffusion, between them controlled consensus (thresholds ours)."
    )
    return found, [Table("Models side by side", pd.DataFrame(rows), caption)]


def unique_names(records: Iterable[Record]) -> list[str]:
    """What to call each record's model."""
    names = []
    for record in records:
        small = record.cell.params.get("small")
        source = record.cell.params.get("vision")
        names.append(f"small ViT of {small} blocks" if small else str(source or "the model trained here"))
    return names


def _model_row(name: str, record: Record, margin: float) -> dict[str, object]:
    result, depth = record.result, record.result["depth"]
    last = result["table"][depth]
    centred = {phase["name"]: phase for phase in result["phases"] if phase["curve"] == "centered_similarity"}

    def edge(phase: str, which: str) -> str:
        found = centred.get(phase)
        return "none" if found is None else f"{found[which]} ({found[f'{which}_low']} to {found[f'{which}_high']})"

    usable = useful(result["readout_loss"], depth, margin)[0] if result["readout_loss"] else None
    return {
        "model": name, "blocks": depth, "cliff ends": edge("cliff", "last"), "climb starts": edge("climb", "first"),
        "useful depth": usable, "onset": "none" if result["onset"] is None else str(result["onset"]),
        "R² self": last.get("r2_self"), "R² all": last.get("r2_all"), "ISI": last.get("isi"),
        "regime": result["regime"], "readout": last.get("ncm_accuracy"), "probe": last.get("probe_accuracy"),
    }  # fmt: skip


def _positions(record: Record, margin: float) -> list[Figure]:
    if not record.result["strengths"]:
        return []
    intact = from_bits(record.result["intact"])
    rows, curves = [], []
    for one in record.result["strengths"]:
        loss = accuracy_loss(intact, from_bits(one["correct"]))
        rows.append({"strength": f"× {one['strength']:g}", "loss": loss.value, "low": loss.low, "high": loss.high})
        curves += [{"strength": f"× {one['strength']:g}", **row} for row in one["table"]]
    chart = charts.bars_with_intervals(
        pd.DataFrame(rows), "strength", "loss", low="low", high="high", title=_lost(record), value_format=".1%"
    )
    caption = (
        "The learned positional encoding multiplied by a number, nothing retrained: 0 takes it away, 1 is the model as "
        f"it is. {record.result['n']} held-out images; intervals are 95 %, paired by image."
    )
    found = [Figure("depth-positions", f"Positions turned up and down: {_lost(record)}", caption, chart)]
    frame = pd.DataFrame(curves)
    frame = frame[frame["centered_similarity"].notna()][["strength", "layer", "centered_similarity"]]
    frame["centered_similarity"] = frame["centered_similarity"].astype(float)
    chart = charts.line(frame, "layer", "centered_similarity", color="strength", y_title="mean cosine")
    caption = (
        "Similarity of an image's patches, mean patch subtracted, at each strength: the first layers' fall is its."
    )
    return [*found, Figure("depth-positions-curves", "What the positions do to the first layers", caption, chart)]


def _lost(record: Record) -> str:
    return "loss of accuracy" if record.result["measure"] == "accuracy" else "share of predictions that change"


def _shorten(record: Record, margin: float) -> list[Figure]:
    if not record.result["choices"]:
        return []
    rows = []
    for choice, how, step, loss in shortened(record, margin):
        by = "by influence" if choice == "influence" else "by measured loss"
        refitted = "refitted" if how == "refit" else "as is"
        blocks = ", ".join(str(block) for block in step["blocks"])
        name = f"{len(step['blocks'])} {by} ({blocks}), {refitted}"
        rows.append({"cut": name, "loss": loss.value, "low": loss.low, "high": loss.high})
    chart = charts.bars_with_intervals(
        pd.DataFrame(rows), "cut", "loss", low="low", high="high", title=_lost(record), reference=margin,
        value_format=".1%",
    )  # fmt: skip
    caption = (
        "Blocks dropped without training: those that turn their input least, or those whose loss, measured once the "
        "rest is refitted in closed form, is least. Chosen and refitted on unlabelled training images, judged on "
        f"{record.result['n']} held-out ones. The dashed line is the margin."
    )
    return [Figure("depth-shorten", "Which blocks to drop: by influence or by what is lost", caption, chart)]


def shortened(record: Record, margin: float) -> list[tuple[str, str, Json, Estimate]]:
    """(choice, plain or refit, step, loss) of every cut of a record."""
    intact = from_bits(record.result["intact"])
    return [
        (choice, how, step, accuracy_loss(intact, from_bits(step[how]), margin))
        for choice, steps in record.result["choices"].items()
        for step in steps
        for how in ("plain", "refit")
    ]


def _cls_rows(record: Record) -> list[dict[str, object]]:
    result = record.result
    if result["measure"] is None:
        return []
    rows: list[dict[str, object]] = []
    name = unique_names([record])[0]

    def add(what: str, bits: str, against: str | None) -> None:
        right = from_bits(bits)
        loss = "" if against is None else _interval(accuracy_loss(from_bits(against), right))
        rows.append({"model": name, "what": what, "accuracy": float(np.mean(right)), "loss": loss, "n": len(right)})

    add("the model as it is", result["intact"], None)
    if result["masked"] is not None:
        add("CLS hidden from the patches", result["masked"], result["intact"])
    for kind in ("nearest mean", "ridge"):
        for feature, called in (("cls", "CLS"), ("pooled", "the mean patch")):
            if feature in result["readouts"]:
                against = result["readouts"].get("cls", {}).get(kind) if feature == "pooled" else None
                add(f"readout ({kind}) of {called}", result["readouts"][feature][kind], against)
    return rows


def _cls_lead(record: Record) -> str:
    result = record.result
    if result["measure"] is None or result["masked"] is None:
        return ""
    loss = accuracy_loss(from_bits(result["intact"]), from_bits(result["masked"]))
    return f"Hidden from all patches, [CLS] costs {_interval(loss)} of accuracy."


def _interval(loss: Estimate) -> str:
    return f"{points(loss.value)} ({100 * loss.low:.1f} to {100 * loss.high:.1f})"


def _exit_row(record: Record) -> dict[str, object]:
    result, speed = record.result, record.measured["speed"]
    found = "yes" if result["useful"] else "no: none was shown to be as good"
    whole, left = from_bits(result["whole"]), from_bits(result["exit"])
    return {
        "model": unique_names([record])[0], "exit after": f"block {result['layer']} of {result['depth']}",
        "as good as the last": found,
        "accuracy, whole": float(np.mean(whole)), "accuracy, exit": float(np.mean(left)),
        "loss": _interval(accuracy_loss(whole, left)), "times as fast": speed["speedup"],
        "the same when loaded": {True: "yes", False: "no"}.get(result["same_when_loaded"], "not loaded"),
    }  # fmt: skip


def _exit_lead(record: Record) -> str:
    result, speed = record.result, record.measured["speed"]
    loss = accuracy_loss(from_bits(result["whole"]), from_bits(result["exit"]))
    return (
        f"Left after block {result['layer']} of {result['depth']} with a readout of its own, the model is "
        f"{speed['speedup']:.2f} times as fast and loses {_interval(loss)} of accuracy."
    )


def _language(record: Record, margin: float) -> list[Figure]:
    result = record.result
    rows = []
    for entry in result["blocks"]:
        if entry["losses"] is not None:
            loss = bootstrap_mean(loss_added(result["intact"], entry["losses"]), margin)
            rows.append({"block": f"block {entry['block']}", "loss": loss.value, "low": loss.low, "high": loss.high})
    if not rows:
        return []
    chart = charts.bars_with_intervals(
        pd.DataFrame(rows), "block", "loss", low="low", high="high", title="rise of the loss", reference=margin,
        value_format=".1%",
    )  # fmt: skip
    caption = (
        f"{record.cell.params['language']}: each block left out in turn; {result['n']} sequences of {result['length']} "
        f"tokens of {record.cell.params['text']}. The whole model's loss is {np.mean(result['intact']):.3f} nats a "
        "token. Intervals: 95 % bootstrap over sequences."
    )
    found = [Figure("depth-language", "A language model without each block", caption, chart)]
    rows = []
    for drop in result["drops"]:
        for how in ("plain", "refit"):
            loss = bootstrap_mean(loss_added(result["intact"], drop[how]), margin)
            by = "by influence" if drop["choice"] == "influence" else "by measured loss"
            name = f"{len(drop['blocks'])} {by}, {'refitted' if how == 'refit' else 'as is'}"
            rows.append({"cut": name, "loss": loss.value, "low": loss.low, "high": loss.high})
    if rows:
        chart = charts.bars_with_intervals(
            pd.DataFrame(rows), "cut", "loss", low="low", high="high", title="rise of the loss", value_format=".1%"
        )
        caption = (
            "Several blocks dropped at once, chosen by influence, or by the loss on training text of each left out "
            "alone and the rest refitted; then the rest as it is, or refitted in closed form on training text."
        )
        found.append(Figure("depth-language-drops", "A language model with fewer blocks", caption, chart))
    return found
