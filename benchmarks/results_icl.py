"""The tables of docs/results/icl.md from the records of a run: ``python benchmarks/results_icl.py runs/icl``.

``deadweight run mini-2511.21038 --out runs/icl`` makes the records. A second folder, of a run with --compare-dtype,
adds the table of what the arithmetic changes.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from deadweight.studies.icl_override import override_table
from deadweight.studies.icl_rates import alignment_table, by_task
from deadweight.studies.icl_tables import arithmetic_table, decoding_table, decomposition_table, sweep_table

from deadweight.prompting.demonstrations import ZERO_SHOT
from deadweight.studies import read_run


def percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.0f} %".replace("-", "−")


def between(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f}".replace("-", "−")


def show(title: str, frame: pd.DataFrame) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(map(str, frame.columns)) + " |")
    print("|" + "---|" * len(frame.columns))
    for row in frame.itertuples(index=False):
        print("| " + " | ".join(map(str, row)) + " |")


def accuracies(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """A row for each task: accuracy and its interval in each condition at `k`."""
    last = table[(table["k"] == k) | (table["condition"] == ZERO_SHOT)]
    rows = []
    for task, own in last.groupby("task", sort=False):
        cells = {one["condition"]: f"{percent(one['truth alignment'])} ({between(one['low'], one['high'])})"
                 for _, one in own.iterrows()}  # fmt: skip
        rows.append({"task": task, **cells})
    return pd.DataFrame(rows)


def alignments(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each condition and k: the paper's rates, mean over the tasks."""
    names = ["truth alignment", "prior alignment", "prompt alignment", "joint rate", "override rate", "within noise"]
    means = table.groupby(["condition", "k"], sort=False)[names].mean().reset_index()
    return means.assign(**{name: means[name].map(percent) for name in names})


def overrides(tasks: dict) -> pd.DataFrame:
    found = override_table(tasks)
    return pd.DataFrame(
        {
            "task": found["task"],
            "right priors": found["right priors"],
            "moved to φ(y*)": [f"{percent(v)} ({between(a, b)})"
                               for v, a, b in found[["override rate", "from", "to"]].to_numpy()],
            "by random labels": found["under random labels"].map(percent),
            "φ(y*) of all": found["φ(y*) given"].map(percent),
            "chance": found["chance"].map(percent),
            "κ": found["κ with φ(y*)"].round(2),
            "excess, points": [f"{100 * v:.0f} ({between(a, b)})".replace("-", "−")
                               for v, a, b in found[["excess", "excess from", "excess to"]].to_numpy()],
            "reading": found["reading"],
        }
    )  # fmt: skip


def sources(tasks: dict, k: int) -> pd.DataFrame:
    found = decomposition_table(tasks)
    own = found[(found["condition"] == "natural") & (found["k"] == k)]
    names = ["prior accuracy", "accuracy", "kept", "repaired", "broken", "gain", "right answers that are the prior's"]
    return own[["task"]].assign(**{name: own[name].map(percent) for name in names})


def sweep(tasks: dict) -> pd.DataFrame:
    """A row for each task: for each k whether larger ones gain more, and the most they gain."""
    found = sweep_table(tasks)
    rows = []
    for task, own in found.groupby("task", sort=False):
        cells = {
            f"k = {one['k']}": f"{percent(one['most gained by a larger k'])} ({between(one['from'], one['to'])}), "
            f"{one['dead past here']}"
            for _, one in own.iterrows()
        }
        rows.append({"task": task, **cells})
    return pd.DataFrame(rows)


def main(folder: str, compared: str | None = None) -> None:
    records, _ = read_run(Path(folder))
    tasks, table = by_task(records), alignment_table(by_task(records))
    k = int(table["k"].max())
    sets = {task: len(sittings) for task, sittings in tasks.items()}
    print(f"{len(tasks)} tasks, sets of demonstrations a task: {sorted(set(sets.values()))}, "
          f"items a task: {sorted(set(table['items']))}")  # fmt: skip
    show(f"Accuracy, {k} demonstrations", accuracies(table, k))
    show("The paper's rates, mean over the tasks", alignments(table))
    show(f"Override, {k} demonstrations", overrides(tasks))
    show(f"Override, {k} demonstrations, calibrated decoding", overrides(by_task(records, "calibrated")))
    show(f"Where right answers come from, {k} natural demonstrations", sources(tasks, k))
    show("Gained by a larger number of natural demonstrations", sweep(tasks))
    decoded = decoding_table(records)
    show("Decodings", decoded.assign(**{name: decoded[name].map(percent) for name in ("sum", "mean", "calibrated")}))
    if compared:
        moved = arithmetic_table(read_run(Path(compared))[0])
        names = moved.select_dtypes(np.number).columns
        show("What bfloat16 changes", moved.assign(**{name: moved[name].round(3) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
