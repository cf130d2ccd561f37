"""The mlp study's part of the page."""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd

from deadweight.lab import Record, Records, accuracy_loss, holm
from deadweight.report import Figure, Section, Table, charts
from deadweight.studies import mlp_language
from deadweight.studies.mlp_verdicts import change, effect_size, loss, pairs, share_removed, variants

TITLE = "MLPs: shared, narrowed, or left alone"
QUESTION = "How much of the MLPs can be shared or narrowed without losing accuracy?"


def sections(records: Records, *, margin: float) -> list[Section]:
    """One section, of whatever cells have their record; none without any."""
    figures: list[Figure] = []
    tables: list[Table] = []
    lead: list[str] = []
    names = variants(records)
    if names:
        figures += [_trade(records, names, margin), _curves(records, names)]
        tables.append(_table(records, names))
        lead.append(_lead(records, names))
    for record in records.where(kind="cut"):
        if record.result["cuts"]:
            figures.append(_cut_figure(record, margin))
            tables.append(_cut_table(record))
        lead.append(_cut_lead(record))
    for record in records.where(kind=mlp_language.KIND):
        tables.append(mlp_language.table(record))
        lead.append(mlp_language.lead(record))
    if not lead:
        return []
    return [Section("mlp", TITLE, QUESTION, " ".join(lead), tuple(figures), tuple(tables))]


def _lead(records: Records, names: list[str]) -> str:
    first = records.where(kind="train", variant="baseline")[0]
    said = [
        f"the {name} model has {share_removed(*pairs(records, name)[0]):.0%} fewer parameters and "
        f"{change(loss(records, name, 0).value)} of accuracy"
        for name in names[1:]
        if pairs(records, name)
    ]
    return (
        f"The same vision transformer was trained on {first.cell.params['images']} with all its MLPs, with MLPs shared "
        f"between blocks (grouped), and with MLPs of part of their width (shallow). Tried on "
        f"{first.result['n']} images it had not seen, {'; '.join(said) or 'the baseline stands alone'}."
    )


def _top1(records: Records, name: str) -> list[float]:
    return [float(record.result["top1"]) for record in records.where(kind="train", variant=name)]


def _trade(records: Records, names: list[str], margin: float) -> Figure:
    """What each variant loses, with its interval, beside what it saves."""
    rows = []
    for name in names[1:]:
        estimate = loss(records, name, margin)
        removed = share_removed(*pairs(records, name)[0])
        finite = estimate.n > 1
        rows.append(
            {
                "model": f"{name} (−{removed:.0%} parameters)",
                "lost": 100 * estimate.value,
                "low": 100 * estimate.low if finite else None,
                "high": 100 * estimate.high if finite else None,
            }
        )
    frame = pd.DataFrame(rows or [{"model": "baseline", "lost": 0.0, "low": None, "high": None}])
    chart = charts.dots_with_intervals(
        frame, "model", "lost", low="low", high="high", title="points of accuracy lost", reference=100 * margin
    )
    caption = (
        "Top-1 accuracy of the baseline minus that of each model, paired by seed, with its 95 % interval; left of 0 "
        f"is a gain. The dashed line is the loss one is willing to accept ({100 * margin:g} points)."
    )
    return Figure("mlp-trade", "What the removed parameters were worth", caption, chart)


def _curves(records: Records, names: list[str]) -> Figure:
    rows: list[dict[str, Any]] = []
    for name in names:
        for curve, label in (("top1", name), ("ema_top1", f"{name}, average")):
            runs = [record.result["curves"][curve] for record in records.where(kind="train", variant=name)]
            for epoch, values in enumerate(zip(*runs, strict=False), start=1):
                spread = {"low": min(values), "high": max(values)}
                rows.append({"model": label, "epoch": epoch, "top1": statistics.fmean(values), **spread})
    chart = charts.line(
        pd.DataFrame(rows),
        "epoch",
        "top1",
        color="model",
        band=("low", "high"),
        y_title="top-1 accuracy",
        y_format=".0%",
    )
    caption = "Accuracy on held-out images after each epoch: the mean over seeds, shaded from the worst to the best."
    return Figure("mlp-curves", "How they learned", caption, chart)


def _table(records: Records, names: list[str]) -> Table:
    against = {name: loss(records, name, 0.0).p or 1.0 for name in names[1:] if len(pairs(records, name)) > 1}
    corrected = dict(zip(against, holm(list(against.values())), strict=True))
    speeds: Any = next((record.measured["images_per_second"] for record in records.where(kind="time")), {})
    rows = []
    for name in names:
        runs = [record.result for record in records.where(kind="train", variant=name)]
        row: dict[str, Any] = {
            "model": name,
            "parameters": int(runs[0]["parameters"]),
            "unique MLPs": runs[0]["unique_mlps"],
            "MACs": int(runs[0]["macs"]),
            "top-1 %": _spread([100 * run["top1"] for run in runs]),
            "top-5 %": _spread([100 * run["top5"] for run in runs]),
            "peak epoch": _spread([run["peak_epoch"] for run in runs], 1),
            "Δ(peak→final)": _spread([100 * run["degradation"] for run in runs]),
        }
        if all(run["curves"]["ema_top1"] for run in runs):
            row["average top-1 %"] = _spread([100 * run["curves"]["ema_top1"][-1] for run in runs])
        row["images/s"] = round(speeds[name]) if name in speeds else "not measured"
        row["p (Holm)"] = f"{corrected[name]:.3f}" if name in corrected else "–"
        row["effect d"] = _effect(records, name) if name in corrected else "–"
        rows.append(row)
    caption = (
        f"Means over {len(_top1(records, 'baseline'))} seeds ± standard deviation, of the last epoch. MACs: "
        "multiply-accumulates of one image, attention products included. Average: the moving average of the weights. "
        "p: paired t-test against the baseline over seeds, Holm's correction; d: the mean loss in standard deviations "
        "of the losses, below 0 a gain. Images a second: forward passes, the models in turn, median."
    )
    return Table("The paper's table, on these images", pd.DataFrame(rows), caption)


def _spread(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds; a single seed has none."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _effect(records: Records, name: str) -> str:
    both = pairs(records, name)
    before, after = ([float(record.result["top1"]) for record in side] for side in zip(*both, strict=True))
    found = effect_size(before, after)
    return "–" if found is None else f"{found:+.2f}"


def _accuracy(bits: str) -> float:
    return bits.count("1") / len(bits)


def _cut_lead(record: Record) -> str:
    result = record.result
    notes = [note[:1].upper() + note[1:] + "." for note in record.context.get("notes", [])]
    size = result["intact"]["parameters"]
    said = [
        f"{name} keeps {_accuracy(cut['correct']):.1%} (with {1 - cut['parameters'] / size:.0%} fewer parameters)"
        for name, cut in result["cuts"].items()
    ]
    what = "accuracy" if result["measure"] == "accuracy" else "agreement with itself"
    done = "was cut, refitted in closed form, and not trained"
    start = f"{record.cell.params['vision']} {done}; intact, its {what} on {result['n']} images is "
    return " ".join([f"{start}{_accuracy(result['intact']['correct']):.1%}; {'; '.join(said)}.", *notes])


def _cut_figure(record: Record, margin: float) -> Figure:
    intact = [int(bit) for bit in record.result["intact"]["correct"]]
    rows = []
    for name, cut in record.result["cuts"].items():
        estimate = accuracy_loss(intact, [int(bit) for bit in cut["correct"]], margin)
        rows.append({"cut": name, "lost": 100 * estimate.value, "low": 100 * estimate.low, "high": 100 * estimate.high})
    chart = charts.dots_with_intervals(
        pd.DataFrame(rows), "cut", "lost", low="low", high="high", title="points lost", reference=100 * margin
    )
    caption = "Points lost on the same images, with 95 % intervals; the dashed line is the accepted loss."
    return Figure("mlp-cut", "What cutting costs without retraining", caption, chart)


def _cut_table(record: Record) -> Table:
    rows = [
        {
            "model": name,
            "parameters": int(part["parameters"]),
            "unique MLPs": part["unique_mlps"],
            "MACs": int(part["macs"]),
            f"{record.result['measure']} %": f"{100 * _accuracy(part['correct']):.2f}",
        }
        for name, part in [("intact", record.result["intact"]), *record.result["cuts"].items()]
    ]
    caption = "shallow keeps two thirds of each MLP's units, by what they do; grouped shares MLPs between neighbours."
    return Table("The model as it is and as it was cut", pd.DataFrame(rows), caption)
