"""What the four papers' studies would take at full scale: cells, hours, bytes, on how many accelerators.

An estimate, not a measurement. `deadweight run paper-2512.01059 --dry-run` plans with the data at hand; this is for who
has not got them: grids are those of the packaged paper-* studies, parameters and multiply-accumulates are counted by
`dw.count` on models without weights, hours are operations over a rate that is stated, and the time until the last cell
is done comes from the same simulation. What a model takes to load, and data to arrive, is left out.

    python benchmarks/full_scale.py --teraflops 100
"""

from __future__ import annotations

import argparse
from typing import Any

import timm
import torch

import deadweight as dw
from deadweight.lab import Cell
from deadweight.lab.forecast import forecast
from deadweight.lab.status import format_duration as time
from deadweight.studies import load_study
from deadweight.studies.frame.sizes import format_bytes

MACHINES = (1, 2, 4, 8, 16, 32, 64)
IMAGENET_TRAIN, IMAGENET_HELD = 1_281_167, 50_000
Work = tuple[Cell, float]  # a cell whose `seconds` are set, and the bytes it leaves


def _vit(name: str, **options: float) -> tuple[int, int]:
    """(parameters, multiply-accumulates a picture) of a ViT without weights."""
    with torch.device("meta"):
        model = timm.create_model(name, **options)
        counts = dw.count(model.eval(), torch.empty(1, 3, 224, 224))
    return counts.parameters, counts.macs


def mlp(rate: float) -> list[Work]:
    """Training is three forwards a picture, and each epoch looks at the held-out part once."""
    study: Any = load_study("paper-2512.01059")
    architecture = study.model.removeprefix("timm:")
    whole, half = _vit(architecture), _vit(architecture, mlp_ratio=2.0)
    sizes = {"baseline": whole, "grouped": (half[0], whole[1]), "shallow": half, "thin": half}
    made: list[Work] = []
    for variant in study.variants:
        held, macs = sizes[variant]
        seconds = 2 * macs * (3 * IMAGENET_TRAIN + IMAGENET_HELD) * study.epochs / rate
        for seed in study.seeds:
            made.append((Cell("mlp", "train", {"variant": variant, "seed": seed}, seconds=seconds), 4.0 * held))
    made.append((Cell("mlp", "time", {}, exclusive=True, seconds=120), 3e3))
    return made


def depth(rate: float) -> list[Work]:
    """A profile is about three forwards a picture, the loss without each block one each, an experiment about five."""
    study: Any = load_study("paper-2511.21635")
    made: list[Work] = []
    for source in (study.vision, *study.compare):
        name = source.removeprefix("timm:")
        with torch.device("meta"):
            blocks = len(timm.create_model(name).blocks)
        forward = 2 * _vit(name)[1] * IMAGENET_HELD / rate
        first = Cell("depth", "profile", {"vision": source}, seconds=3 * forward)
        made.append((first, 60e6))
        made.append((Cell("depth", "skip", {"vision": source}, seconds=(blocks + 1) * forward), 50e3 * (blocks + 1)))
        for kind in study.experiments:
            needs = () if kind == "positions" else (first.key,)
            alone = kind == "exit"
            cell = Cell("depth", kind, {"vision": source}, needs, seconds=5 * forward, exclusive=alone)
            made.append((cell, 1e6))
    return made


# Parameters as the models' names or cards say them.
_BILLIONS = {"Llama-3.2-1B": 1.24, "Llama-3.2-3B": 3.21, "Llama-3.1-8B": 8.03, "Mistral-7B-v0.3": 7.25,
             "Mistral-Nemo-Base-2407": 12.2, "Qwen2.5-1.5B": 1.54, "Qwen2.5-7B": 7.62, "gemma-2-2b": 2.61}  # fmt: skip


def icl(rate: float) -> list[Work]:
    """Demonstrations are read once a cell, items (60 tokens with their labels) after them; half a second beside."""
    study: Any = load_study("paper-2511.21038")
    made: list[Work] = []
    for language in study.language:
        parameters = _BILLIONS[language.rpartition("/")[2]] * 1e9
        for task in study.tasks:
            for condition in study.conditions:
                for k in (0,) if condition == "zero-shot" else study.k:
                    for seed in (0,) if condition == "zero-shot" else study.seeds:
                        tokens = 60 * k + 60 * study.limit
                        place = {"language": language, "task": task, "condition": condition, "k": k, "seed": seed}
                        seconds = 2 * parameters * tokens / rate + 0.5
                        made.append((Cell("icl", "answers", place, seconds=seconds), 21e3))
    return made


def attention(rate: float) -> list[Work]:
    """Six operations a parameter and token; trainings whose energy is read have their machine to themselves."""
    study: Any = load_study("paper-2507.07247")
    seconds = 6 * 124e6 * study.steps * study.batch * study.length / rate
    return [
        (Cell("attention", "train", {"mechanism": name, "seed": seed}, exclusive=True, seconds=seconds),
         7e3)
        for name in study.mechanisms
        for seed in study.seeds
    ]  # fmt: skip


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--teraflops", type=float, default=100.0, help="sustained by one accelerator, in 10^12 a second")
    rate = given.parse_args().teraflops * 1e12
    print(f"one accelerator at {rate / 1e12:g} TFLOP/s sustained; machines of one accelerator each")
    print("| study | cells | accelerator-hours | on disk | longest chain | done after, on 1 / 2 / … machines |")
    print("|---|---|---|---|---|---|")
    together: list[Work] = []
    for name, plan in (("mlp", mlp), ("depth", depth), ("icl", icl), ("attention", attention)):
        work = plan(rate)
        together += work
        _row(name, work)
    _row("all four", together)


def _row(name: str, work: list[Work]) -> None:
    cells = [cell for cell, _ in work]
    expected = forecast(cells, MACHINES)
    spans, fastest = [], float("inf")
    for machines, span in expected.spans.items():
        if span < 0.95 * fastest:
            fastest = span
            spans.append(f"{machines}: {time(span)}")
    held = int(sum(size for _, size in work))
    print(
        f"| {name} | {len(cells)} | {expected.seconds / 3600:.1f} | {format_bytes(held)} | {time(expected.longest)} | "
        f"{', '.join(spans)} |"
    )


if __name__ == "__main__":
    main()
