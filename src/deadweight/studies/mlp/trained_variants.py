"""The paper's experiment: a vision transformer trained with all its MLPs, with shared ones, and with narrower ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
import torch

from deadweight.evaluation import from_bits, to_bits
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.loading import save
from deadweight.meters import count
from deadweight.meters.clock import Stopwatch
from deadweight.report import Figure, Table, charts
from deadweight.statistics import holm, mean, two_way_mean
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.page import interval_plots
from deadweight.studies.frame.quantity import ACCURACY, Quantity
from deadweight.studies.frame.remedy import Remedy
from deadweight.studies.frame.verdicts import Settled
from deadweight.studies.mlp.variants import check_trainable
from deadweight.training import Feed, evaluate, remove_checkpoints, suitable_threads, train

LATE = Quantity("accuracy lost after the best epoch", "accuracy")
PAPER_TEST = Quantity("accuracy lost, seed by seed", "accuracy")
_REMEDY = (
    "Train the smaller shape from the start next time; to bring a model that is trained already to that size, compress "
    "it: no labels, no training."
)


class Training(TypedDict):
    """The result of a training cell. top1, top5, degradation: shares of one, of the last epoch; macs: of one image."""

    top1: float
    top5: float
    peak_epoch: int
    degradation: float
    n: int
    parameters: int
    unique_mlps: int | None
    macs: int
    macs_linear: int
    curves: dict[str, list[float]]
    correct: str


class TrainedVariants(Experiment):
    """Variants × seeds, each trained alike; what each loses against the baseline, over images and seeds."""

    kind: ClassVar[str] = "train"
    bytes_per_cell: ClassVar[int] = 700_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        if not study.trains:
            return []
        check_trainable(study.model)
        data = study.pictures()
        work: dict[str, Json] = {"epochs": study.epochs, "based_on": study.based_on, "recipe": dict(study.recipe)}
        seconds = len(data.train) * study.epochs / 2500
        return [
            Cell(
                study.kind, self.kind, {"variant": name, "seed": seed, **shape_of(study), **work},
                sources={"images": data.fingerprint}, version=study.version, seconds=seconds, spread=True,
            )
            for seed in (study.seed + offset for offset in study.seeds)
            for name in study.variants
        ]  # fmt: skip

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        data, seed = study.pictures(), int(cell.params["seed"])
        model = study.variant(str(cell.params["variant"]), seed)
        picture, _ = data.validation[0]
        counts = count(model, picture[None])
        watch = Stopwatch(torch.device(bench.device))
        resumed = (bench.folder / "checkpoint").exists()
        with suitable_threads(model, bench.device) as threads:
            watch.start()
            curves = train(
                model,
                data,
                study.recipe_for(seed),
                folder=bench.folder / "checkpoint",
                note=bench.note,
                device=bench.device,
                workers=study.workers,
                trackers=study.trackers,
                tracker_folder=bench.folder,
            )
            watch.stop()
            scores = evaluate(model, Feed(data.validation, torch.device(bench.device)))
        if bench.leads:
            curves.write(bench.folder / "curves.parquet")
            save(model.cpu(), bench.folder / "model")
            remove_checkpoints(bench.folder / "checkpoint")
        result: Training = {
            "top1": curves.top1[-1],
            "top5": curves.top5[-1],
            "peak_epoch": curves.peak_epoch,
            "degradation": curves.degradation,
            "n": len(data.validation),
            "parameters": counts.parameters,
            "unique_mlps": counts.unique_mlps,
            "macs": counts.macs,
            "macs_linear": counts.macs_linear,
            "curves": curves.as_json(),
            "correct": to_bits(scores.correct),
        }
        measured: dict[str, Json] = {"training_seconds": watch.seconds}
        if not resumed:  # else part of the images were seen in another process's time
            measured["training_images_per_second"] = len(data.train) * study.epochs / watch.seconds
        return Outcome(dict(result), measured, {"threads": threads})

    def effects(self, records: Records, margin: float) -> list[Effect]:
        names = [name for name in variants(records)[1:] if pairs(records, name)]
        losses = [_loss(records, name, margin) for name in names]
        return [*losses, *(_late(records, name) for name in names), *_paper_test(records, names)]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        names = variants(records)
        if not names:
            return []
        first = records.where(kind="train", variant="baseline")[0]
        lost = ", ".join(names[1:]) or "no other"
        return [
            f"The same vision transformer was trained on {first.cell.params['images']} with all its MLPs, with MLPs "
            "shared between blocks (grouped), and with MLPs of part of their width (shallow, thin); tried on "
            f"{first.result['n']} images it had not seen. Compared with the baseline: {lost}."
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        names = variants(records)
        if not names:
            return []
        judged = [pair.effect for pair in settled if pair.effect.quantity == ACCURACY]
        called = {effect.id: f"{effect.id} (−{_removed(records, effect.id):.0%} parameters)" for effect in judged}
        trade = interval_plots(
            "mlp-trade", judged, margin, title="What the removed parameters were worth", names=called,
            caption="Accuracy of the baseline minus that of each model, over images and seeds; left of 0 is a gain.",
        )  # fmt: skip
        return [*trade, _curves(records, names)]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        names = variants(records)
        return [_table(records, names, [pair.effect for pair in settled])] if names else []


def shape_of(study: Any) -> dict[str, Json]:
    """What decides the models and images of the study, for its cells."""
    names = ("images", "limit", "model", "patch_size", "dim", "depth", "heads", "size", "pattern", "scale", "keep")
    return {name: getattr(study, name) for name in (*names, "image_size")}


def variants(records: Records) -> list[str]:
    """Variants that were trained, the baseline first; none while the baseline is missing."""
    names = list(dict.fromkeys(str(record.cell.params["variant"]) for record in records.where(kind="train")))
    return ["baseline", *[name for name in names if name != "baseline"]] if "baseline" in names else []


def pairs(records: Records, name: str) -> list[tuple[Record, Record]]:
    """(baseline, variant) of every seed that has both."""
    runs = {
        variant: {record.cell.params["seed"]: record for record in records.where(kind="train", variant=variant)}
        for variant in ("baseline", name)
    }
    return [(runs["baseline"][seed], runs[name][seed]) for seed in runs["baseline"] if seed in runs[name]]


def _loss(records: Records, name: str, margin: float) -> Effect:
    """Right answers of the baseline minus those of a variant, image by image and seed by seed.

    Five seeds on the same images say nothing about other images: both are drawn, and the interval allows for both.
    """
    both = pairs(records, name)
    right = [[from_bits(record.result["correct"]) for record in pair] for pair in both]
    lost = np.array([np.subtract(before, after) for before, after in right]).T  # (images, seeds)
    baseline = float(np.mean([float(before.result["top1"]) for before, _ in both]))
    left = 1 - _removed(records, name)
    first = both[0][0]
    remedy = Remedy(
        f"cell:{first.key}", "compress", {"images": first.cell.params["images"], "parameters": round(left, 2)}, _REMEDY
    )
    return Effect(
        name, "", f"{_description(name, both[0][1])} ({1 - left:.0%} fewer parameters)", ACCURACY,
        two_way_mean(lost, margin, units=("images", "seeds")), baseline, judged=True, remedy=remedy,
        evidence=_keys(both), detail=f"{len(both)} seeds" if len(both) > 1 else "one seed",
    )  # fmt: skip


def _late(records: Records, name: str) -> Effect:
    both = pairs(records, name)
    before, after = ([float(record.result["degradation"]) for record in side] for side in zip(*both, strict=True))
    estimate = mean(np.subtract(before, after), symmetric=True, unit="seeds")
    size = statistics.fmean(before), statistics.fmean(after)
    statement = (
        f"From its best epoch to its last the baseline lost {100 * size[0]:.1f} points of accuracy, the {name} model "
        f"{100 * size[1]:.1f}: a difference of {100 * estimate.value:+.1f} over the seeds, on these images."
    )
    return Effect(f"{name}-late", "", "", LATE, estimate, evidence=_keys(both), statement=statement)


def _paper_test(records: Records, names: Sequence[str]) -> list[Effect]:
    """The paper's own test: paired t over seeds against no difference, Holm's correction over the variants."""
    found = []
    for name in names:
        both = pairs(records, name)
        before, after = ([float(record.result["top1"]) for record in side] for side in zip(*both, strict=True))
        estimate = mean(np.subtract(before, after), 0.0, symmetric=True, unit="seeds")
        size = effect_size(before, after)
        detail = "–" if size is None else f"{size:+.2f}"
        statement = f"Over {len(both)} seeds, on these images, {name} loses {100 * estimate.value:.2f} points."
        found.append(
            Effect(f"{name}-seeds", "", "", PAPER_TEST, estimate, evidence=_keys(both), statement=statement,
                   detail=detail, shown=False)
        )  # fmt: skip
    tested = [effect for effect in found if effect.estimate.p is not None and effect.estimate.low is not None]
    corrected = dict(zip((e.id for e in tested), holm([e.estimate.p or 0.0 for e in tested]), strict=True))
    return [replace(e, estimate=replace(e.estimate, p=corrected.get(e.id))) for e in found]


def effect_size(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Cohen's d of paired values: the mean loss in standard deviations of the losses; None without a spread.

    0.2 is called small, 0.8 large (Cohen, 1988); with few seeds it is as rough as the spread it divides by.

    >>> effect_size([0.97, 0.98, 0.96], [0.95, 0.97, 0.96])
    1.0
    """
    losses = [one - other for one, other in zip(before, after, strict=True)]
    if len(losses) < 2 or max(losses) - min(losses) < 1e-12:
        return None
    return round(statistics.fmean(losses) / statistics.stdev(losses), 12)


def _description(name: str, record: Record) -> str:
    """What was done to make a variant, as the start of a sentence."""
    params = record.cell.params
    width = f"{params.get('keep', 0.5):.0%} of its width"
    if name == "shallow":
        return f"Cutting every MLP to {width} before training"
    if name == "thin":
        return f"Building every MLP at {width}"
    size, pattern = params.get("size", 2), params.get("pattern", "adjacent")
    blocks = f"{size} neighbouring blocks" if pattern == "adjacent" else f"{size} blocks ({pattern})"
    return f"Sharing each MLP between {blocks}"


def _removed(records: Records, name: str) -> float:
    before, after = pairs(records, name)[0]
    return 1 - float(after.result["parameters"]) / float(before.result["parameters"])


def _keys(both: Sequence[tuple[Record, Record]]) -> tuple[str, ...]:
    return tuple(record.key for pair in both for record in pair)


def _curves(records: Records, names: list[str]) -> Figure:
    rows: list[dict[str, Any]] = []
    for name in names:
        for curve, label in (("top1", name), ("ema_top1", f"{name}, average")):
            runs = [record.result["curves"][curve] for record in records.where(kind="train", variant=name)]
            for epoch, values in enumerate(zip(*runs, strict=False), start=1):
                spread = {"low": min(values), "high": max(values)}
                rows.append({"model": label, "epoch": epoch, "top1": statistics.fmean(values), **spread})
    chart = charts.line(
        pd.DataFrame(rows), "epoch", "top1", color="model", band=("low", "high"), y_title="top-1 accuracy",
        y_format=".0%",
    )  # fmt: skip
    caption = "Accuracy on held-out images after each epoch: the mean over seeds, shaded from the worst to the best."
    return Figure("mlp-curves", "How they learned", caption, chart)


def _table(records: Records, names: list[str], effects: Sequence[Effect]) -> Table:
    tests = {effect.id.removesuffix("-seeds"): effect for effect in effects if effect.quantity == PAPER_TEST}
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
        test = tests.get(name)
        row["p (Holm)"] = f"{test.estimate.p:.3f}" if test is not None and test.estimate.p is not None else "–"
        row["effect d"] = test.detail if test is not None else "–"
        rows.append(row)
    seeds = len(records.where(kind="train", variant="baseline"))
    caption = (
        f"Means over {seeds} seeds ± standard deviation, of the last epoch. MACs: multiply-accumulates of one image, "
        "attention products included. Average: the moving average of the weights. p: the paper's paired t-test "
        "against the baseline over seeds, on these images, Holm's correction; d: the mean loss in standard deviations "
        "of the losses, below 0 a gain. Images per second: forward passes, the models in turn, median."
    )
    return Table("The paper's table, on these images", pd.DataFrame(rows), caption)


def _spread(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds; a single seed has none."""
    middle = f"{statistics.fmean(values):.{digits}f}"
    return f"{middle} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else middle


__all__ = ["TrainedVariants", "Training", "effect_size", "pairs", "shape_of", "variants"]
