"""How well a small GPT-2 learns with each mechanism: the same text in the same order for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
import torch

from deadweight.attention import MECHANISMS
from deadweight.errors import InputError
from deadweight.lab import Cell, Json, Outcome, Record, Records, Workbench
from deadweight.meters import Reading, measure
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.report import Figure, Table, charts
from deadweight.statistics import Estimate, after_budget, chosen, mean, rise, simultaneous, two_way_mean
from deadweight.studies.attention.names import named, same_function
from deadweight.studies.attention.records import (
    MISSING,
    held_out,
    joules,
    loss_quantity,
    milliseconds,
    number,
    reference,
    runs,
    timed_model,
    trained,
)
from deadweight.studies.attention.timing.subject import causal
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.quantity import RELATIVE_LOSS
from deadweight.studies.frame.verdicts import Settled
from deadweight.training import suitable_threads
from deadweight.training.language import VALIDATION_WINDOWS, train_language

POINTS = 60  # of a loss curve
BESIDE_OTHERS = Reading.missing(
    "J",
    "training runs beside other work, whose joules a counter cannot tell apart",
    "see the timing cell of the whole model: joules per training step, alone on the machine",
)


class LanguageTraining(TypedDict):
    """The result of a training cell; losses are nats per token. losses: of each step; held_out_curve: points (steps,
    loss on few windows); window_losses, held_out_loss: of the whole held-out text, by window and their mean."""

    losses: list[float]
    held_out_curve: list[list[float]]
    window_losses: list[float]
    held_out_loss: float
    parameters: int
    tokens: int


class Quality(Experiment):
    """Mechanisms × seeds, each trained alike; a ranking without verdicts: so few steps hardly train a model."""

    kind: ClassVar[str] = "train"
    bytes_per_cell: ClassVar[int] = 9_000

    def cells(self, study: Any, subject: None) -> list[Cell]:
        for name in (*study.mechanisms, *study.mechanism_options):
            MECHANISMS.get(name)
        for name in study.mechanisms:
            causal(name, study.dim, study.heads, study.training_options(name))
        text = study.data()
        short = min(len(text.train), len(text.validation))
        if short <= study.length:
            raise InputError(f"length {study.length} for a text of {short} tokens", expected="a shorter length")
        training: dict[str, Json] = {
            name: getattr(study, name) for name in ("text", "steps", "batch", "length", "dim", "depth", "heads", "lr")
        }
        training |= {"windows": min(VALIDATION_WINDOWS, study.limit or VALIDATION_WINDOWS), "checks": study.checks}
        training |= {} if study.tokenizer is None else {"tokenizer": study.tokenizer}
        training |= {} if study.epoch is None else {"epoch": study.epoch}
        seconds = 1 + study.steps * (0.008 + study.step_macs() / 3e10)
        return [
            Cell(
                study.kind, self.kind,
                {"mechanism": name, "seed": study.seed + seed, "options": study.training_options(name), **training},
                sources={"text": text.fingerprint}, version=study.version, seconds=seconds,
            )
            for name in study.mechanisms
            for seed in study.seeds
        ]  # fmt: skip

    def run(self, study: Any, cell: Cell, bench: Workbench) -> Outcome:
        want, text = cell.params, study.data()
        shape = GPT2Config(text.vocabulary, want["length"], want["dim"], want["depth"], want["heads"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(want["seed"])
            model = GPT2(shape, lambda _: causal(want["mechanism"], shape.width, shape.heads, want["options"]))
        with suitable_threads(model, bench.device) as threads, measure(device=bench.device) as cost:
            training = train_language(
                model.to(bench.device),
                text.train,
                text.validation,
                steps=want["steps"],
                batch=want["batch"],
                length=want["length"],
                lr=want["lr"],
                seed=want["seed"],
                windows=want["windows"],
                checks=want["checks"],
                note=bench.note,
            )
        attention: Any = model.blocks[0].attention
        result: LanguageTraining = {
            "losses": list(training.losses),
            "held_out_curve": [list(point) for point in training.curve],
            "window_losses": list(training.windows),
            "held_out_loss": training.held_out,
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens": want["steps"] * want["batch"] * want["length"],
        }
        used = {**cost.as_json(), "energy": BESIDE_OTHERS.as_json()}
        measured = {"train_seconds": cost.seconds, "cost": used}
        return Outcome(dict(result), measured, {"kernel": attention.kernel, "threads": threads})

    def effects(self, records: Records, margin: float) -> list[Effect]:
        names = trained(records)
        if not names:
            return []
        base = reference(names)
        ranking = [_best(records, names)] if len(names) > 1 else []
        changes = [
            effect
            for name in names
            if not same_function(name, base) and (effect := _change(records, base, name)) is not None
        ]
        return [*ranking, *changes, *_budgets(records, names)]

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        names = trained(records)
        if not names:
            return []
        want = runs(records, names[0])[0].cell.params
        order = sorted(names, key=lambda name: held_out(records, name))
        return [
            f"A small GPT-2 ({want['depth']} blocks, width {want['dim']}) was trained {want['steps']} steps on the "
            f"same text of {want['text']} with each of {len(names)} attention mechanisms, nothing else changed; the "
            f"lowest held-out loss is {held_out(records, order[0]):.2f} {loss_quantity(records).unit}, with "
            f"{order[0]}, the highest {held_out(records, order[-1]):.2f}, with {order[-1]}."
        ]

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        found = [_pareto(records), loss_curves(records)]
        return [figure for figure in found if figure is not None]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        table = _table(records, {pair.effect.id: pair.effect for pair in settled})
        return [] if table is None else [table]


def _change(records: Records, base: str, name: str) -> Effect | None:
    """Rise of the held-out loss as a share of the reference's, over the seeds both have."""
    pairs = [
        (one, two)
        for one in runs(records, base)
        for two in runs(records, name)
        if one.cell.params["seed"] == two.cell.params["seed"]  # the same seed is the same batches
    ]
    if not pairs:
        return None
    estimate = loss_increase(pairs)
    seeds = len(pairs)
    covers = {1: ", of this training run on other text"}.get(seeds, "")
    digits = 1 if abs(estimate.value) >= 0.0005 else 2
    change = f"{abs(estimate.value):.{digits}%} {'higher' if estimate.value > 0 else 'lower'}"
    options = pairs[0][1].cell.params["options"]
    statement = (
        f"Replacing {named(base)} by {named(name, options)} makes the held-out loss of a small GPT-2 {change} after "
        f"{pairs[0][0].cell.params['steps']} training steps{covers}."
    )
    evidence = tuple(record.key for pair in pairs for record in pair)
    return Effect(f"loss-{name}", "", "", RELATIVE_LOSS, estimate, evidence=evidence, statement=statement)


def loss_increase(pairs: Sequence[tuple[Record, Record]]) -> Estimate:
    """(after − before) / mean before, over windows of held-out text and, where there are several, over seeds.

    With one seed the interval is about other text and this very training run.
    """
    if len(pairs) == 1:
        before, after = pairs[0]
        return rise(before.result["window_losses"], after.result["window_losses"], unit="windows")
    whole = float(np.mean([before.result["held_out_loss"] for before, _ in pairs]))
    shares = [np.subtract(b.result["window_losses"], a.result["window_losses"]) / whole for a, b in pairs]
    return two_way_mean(np.stack(shares, axis=1), shares=False, units=("windows", "seeds"))


def _best(records: Records, names: Sequence[str]) -> Effect:
    """The lowest held-out loss; its interval allows for its having been chosen among all."""
    order = sorted(names, key=lambda name: held_out(records, name))
    best, quantity = runs(records, order[0]), loss_quantity(records)
    windows = np.stack([record.result["window_losses"] for record in best], axis=1)
    level = simultaneous(len(names))
    if windows.shape[1] > 1:
        estimate = two_way_mean(windows, shares=False, level=level, units=("windows", "seeds"))
    else:
        estimate = mean(windows[:, 0], level=level, unit="windows")
    token = quantity.unit.split()[-1]
    statement = (
        f"After {best[0].result['tokens']:,} {token}s of text, the same for all {len(names)} mechanisms, "
        f"{named(order[0])} has the lowest held-out loss, {held_out(records, order[0]):.2f} {quantity.unit}; "
        f"{named(order[-1])} has the highest, {held_out(records, order[-1]):.2f}."
    )
    evidence = tuple(record.key for name in names for record in runs(records, name))
    return Effect(
        "loss-ranking", "", "", quantity, chosen(estimate, len(names)), evidence=evidence, statement=statement
    )


def _budgets(records: Records, names: Sequence[str]) -> list[Effect]:
    """Loss after the time, and after the joules, in which the cheapest finishes: of each, and the best of all."""
    model = timed_model(records)
    if model is None:
        return []
    quantity, found = loss_quantity(records), model.measured["mechanisms"]
    shared = [name for name in names if name in found]
    seconds = {name: float(found[name]["seconds"]["value"]) for name in shared}
    energy = {name: value for name in shared if isinstance(value := number(joules(found[name])), float)}
    steps = int(runs(records, names[0])[0].cell.params["steps"])
    effects: list[Effect] = []
    for what, cost in (("time", seconds), ("joules", energy)):
        for name in cost:
            spent = after_budget(_curves(records, name), cost[name], steps * min(cost.values()))
            effects.append(
                Effect(
                    f"loss-equal-{what}-{name}", "", "", quantity, spent.loss, evidence=(model.key,), shown=False,
                    statement=f"After equal {what}: {spent.loss.value:.3f}.",
                )
            )  # fmt: skip
    curved = [name for name in seconds if runs(records, name)[0].result["held_out_curve"]]
    return [*effects, _equal_time(records, model, curved, seconds, steps)] if len(curved) > 1 else effects


def _curves(records: Records, name: str) -> list[Any]:
    found = runs(records, name)
    steps = int(found[0].cell.params["steps"])
    return [r.result.get("held_out_curve") or [[steps, r.result["held_out_loss"]]] for r in found]


def _equal_time(
    records: Records, model: Record, names: Sequence[str], seconds: Mapping[str, float], steps: int
) -> Effect:
    """Who has the lowest loss once all have been given the time the quickest needs for its whole training."""
    budget, quantity = steps * min(seconds[name] for name in names), loss_quantity(records)
    spent = {name: after_budget(_curves(records, name), seconds[name], budget) for name in names}
    order = sorted(names, key=lambda name: spent[name].loss.value)
    best, worst = order[0], order[-1]
    statement = (
        f"Given the {budget:.3g} seconds the quickest needs for its {steps} training steps, {named(best)} reaches the "
        f"lowest held-out loss, {spent[best].loss.value:.2f} {quantity.unit} after {spent[best].steps:.0f} steps; "
        f"{named(worst)} the highest, {spent[worst].loss.value:.2f} after {spent[worst].steps:.0f}."
    )
    evidence = (model.key, *(r.key for name in names for r in runs(records, name)))
    estimate = chosen(spent[best].loss, len(names))
    return Effect("loss-equal-time", "", "", quantity, estimate, evidence=evidence, statement=statement)


def _pareto(records: Records) -> Figure | None:
    """Loss against the time of a training step of the whole model."""
    model = timed_model(records)
    if model is None:
        return None
    rows = [
        {
            "mechanism": name,
            "milliseconds": milliseconds(model.measured["mechanisms"][name]),
            "held_out_loss": held_out(records, name),
        }
        for name in trained(records)
        if name in model.measured["mechanisms"]
    ]
    if not rows:
        return None
    chart = charts.scatter(
        pd.DataFrame(rows), "milliseconds", "held_out_loss", color="mechanism", label="mechanism", x_log=True,
        x_title="ms per training step", y_title=f"held-out loss, {loss_quantity(records).unit}",
    )  # fmt: skip
    caption = "Left is faster, down is better. Eager, sdpa and flash compute the same function, so only time differs."
    return Figure("attention-pareto", "Quality against time", caption, chart)


def loss_curves(records: Records) -> Figure | None:
    """Loss while training; over epochs where the study says what one is."""
    names = trained(records)
    epoch = runs(records, names[0])[0].cell.params.get("epoch") if names else None
    rows = [row for name in names for row in _curve(name, runs(records, name), epoch)]
    if not rows:
        return None
    chart = charts.line(
        pd.DataFrame(rows), "epoch" if epoch else "step", "loss", color="mechanism", points=False,
        y_title=f"training loss, {loss_quantity(records).unit}",
    )  # fmt: skip
    caption = "Mean over seeds, smoothed over neighbouring steps. Every mechanism saw the same text in the same order."
    return Figure("attention-loss", "Loss while training (the paper's Figure 1)", caption, chart)


def _curve(name: str, found: Sequence[Record], epoch: int | None) -> list[dict[str, Any]]:
    losses = np.mean([record.result["losses"] for record in found], axis=0)
    parts = np.array_split(losses, min(POINTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    steps = [{"epoch": int(end) / epoch} if epoch else {"step": int(end)} for end in ends]
    return [{"mechanism": name, **step, "loss": float(part.mean())} for step, part in zip(steps, parts, strict=True)]


def _table(records: Records, effects: Mapping[str, Effect]) -> Table | None:
    """Loss after the same tokens, the same seconds and the same joules."""
    names, model = trained(records), timed_model(records)
    timed = {} if model is None else model.measured["mechanisms"]

    def after(what: str, name: str) -> float | str:
        found = effects.get(f"loss-equal-{what}-{name}")
        return MISSING if found is None else found.estimate.value

    rows = [
        {
            "mechanism": name,
            "held-out loss": held_out(records, name),
            "bits": held_out(records, name) / np.log(2),
            "after equal seconds": after("time", name),
            "after equal joules": after("joules", name),
            "parameters": int(runs(records, name)[0].result["parameters"]),
            "ms per training step": milliseconds(timed[name]) if name in timed else None,
            "training seconds": float(np.median([r.measured["train_seconds"] for r in runs(records, name)])),
            "seeds": len(runs(records, name)),
        }
        for name in names
    ]
    if not rows:
        return None
    caption = (
        f"Loss in {loss_quantity(records).unit} on text the models have not seen: after the same tokens, then after "
        "the time, and the energy, in which the cheapest finishes. Those are read off the held-out curve, which is of "
        "fewer windows of the text, so that they compare among themselves only, and whose learning rate had not yet "
        "come down for the others. Training runs share the machine, so their seconds are rough; steps are timed apart."
    )
    return Table("Loss at equal tokens, time, energy", pd.DataFrame(rows), caption)


__all__ = ["LanguageTraining", "Quality", "loss_curves", "loss_increase"]
