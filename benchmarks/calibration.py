"""Coverage of every interval and the share of false verdicts, simulated at the sizes the studies use.

    python benchmarks/calibration.py [--quick] [--only WORD] [--out calibration.json] [--seed 0]

Each row names a rule, what was simulated, and what came of it:

covers:     share of the simulated data sets whose interval holds the true value; promised: at least 93 %.
below:      share whose whole interval lies below the true value (a loss told too small); above: the other way.
shown:      share of data sets for which an interval is shown at all, not only a range.
false:      for rules that decide: share of studies, or models, with at least one false claim; promised: at most 5 %.

Losses of accuracy are exact sums over all tables, not simulated. A row fails where its number misses the promise by
more than three standard errors of the simulation. Exit code 1 if any does. About eight minutes on one core; one with
--quick.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path

import calibration_studies as whole
import numpy as np
import numpy.typing as npt
from scipy import stats

from deadweight import statistics as st
from deadweight.probes.hashes import poisson_weights
from deadweight.probes.states.image_means import student_interval
from deadweight.statistics.proportions import difference_ends
from deadweight.studies import frame
from deadweight.studies.frame import Effect
from deadweight.studies.frame.quantity import ACCURACY

COVER, FALSE = 0.93, 0.05
Generator = np.random.Generator
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One line of the table; what does not apply is None."""

    rule: str
    setting: str
    runs: int
    covers: float | None = None
    below: float | None = None
    above: float | None = None
    shown: float | None = None
    width: float | None = None
    false: float | None = None

    @property
    def holds(self) -> bool:
        seen, promised = (self.false, FALSE) if self.false is not None else (self.covers, COVER)
        if seen is None:
            return True
        doubt = 3 * sqrt(promised * (1 - promised) / self.runs) if self.runs else 1e-9
        return seen <= promised + doubt if self.false is not None else seen >= promised - doubt


def coverage(
    rule: str, setting: str, draw: Callable[[Generator], st.Estimate], truth: float, runs: int, seed: int
) -> Row:
    """Simulate an interval: of the data sets that have one, how many hold the truth."""
    generator = np.random.default_rng([seed, _number(rule + setting)])
    found = [draw(generator) for _ in range(runs)]
    shown = [one for one in found if one.covers]
    low = np.asarray([-np.inf if one.low is None else one.low for one in shown])
    high = np.asarray([np.inf if one.high is None else one.high for one in shown])
    if not shown:
        return Row(rule, setting, runs, shown=0.0)
    below, above = float((high < truth - 1e-12).mean()), float((low > truth + 1e-12).mean())
    return Row(
        rule, setting, len(shown), 1 - below - above, below, above, len(shown) / runs, float(np.median(high - low))
    )


def decisions(rule: str, setting: str, study: Callable[[Generator], bool], runs: int, seed: int) -> Row:
    """Simulate a rule that decides; `study` says whether anything false was claimed."""
    generator = np.random.default_rng([seed, _number(rule + setting)])
    return Row(rule, setting, runs, false=float(np.mean([study(generator) for _ in range(runs)])))


def _number(text: str) -> int:
    return int.from_bytes(text.encode(), "little") % (1 << 62)


# Distributions of losses, each with the true mean 1.
SHAPES: dict[str, Callable[[Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda g, size: 1 + g.normal(size=size),
    "exponential": lambda g, size: g.exponential(size=size),
    "lognormal 0.5": lambda g, size: g.lognormal(-0.125, 0.5, size),
    "lognormal 0.75": lambda g, size: g.lognormal(-(0.75**2) / 2, 0.75, size),
    "lognormal 1": lambda g, size: g.lognormal(-0.5, 1, size),
}


def accuracy_losses(runs: int, seed: int) -> Iterator[Row]:
    """Exact, at a true loss of one point: the worst over how many items change for the better."""
    rule = "accuracy_loss"
    for n in (12, 24, 48, 78, 195, 200, 359, 400, 1000):
        for better in (0.0, 0.005, 0.02, 0.05, 0.2):
            below, above = exact_errors(n, 0.01 + better, better)
            yield Row(rule, f"{n} items, {better:.1%} better", 0, 1 - below - above, below, above, 1.0)


def exact_errors(n: int, worse: float, better: float, tail: float = 0.025) -> tuple[float, float]:
    """Probability that the interval lies below, and above, the true difference."""
    below = above = 0.0
    for c in _likely(n, better):
        weight = float(stats.binom.pmf(c, n, better))
        left = n - c
        share = worse / (1 - better)
        counts = _likely(left, share)
        chances = stats.binom.pmf(counts, left, share) * weight
        for b, chance in zip(counts, chances, strict=True):
            low, high = difference_ends(float(b), float(c), n, tail)
            below += chance * (high < worse - better - 1e-12)
            above += chance * (low > worse - better + 1e-12)
    return float(below), float(above)


def _likely(n: int, share: float) -> npt.NDArray[np.int64]:
    """Counts that are not less likely than one in a hundred million."""
    low, high = stats.binom.ppf([1e-8, 1 - 1e-8], n, share)
    return np.arange(int(low), int(high) + 1)


def rates(runs: int, seed: int) -> Iterator[Row]:
    for n in (12, 24, 48, 78, 359):
        for share in (0.02, 0.1, 0.5):
            yield coverage(
                "rate", f"{n} items, true {share:g}",
                lambda g, n=n, share=share: st.rate(g.random(n) < share), share, runs, seed,
            )  # fmt: skip
    for n, asked in ((12, 3), (78, 3), (78, 5)):
        for spread in (0.5, 4.0):
            yield coverage(
                "rate, clusters", f"{n} items asked {asked} times, Beta({0.3 * spread:g}, {0.7 * spread:g})",
                lambda g, n=n, k=asked, s=spread: st.rate(
                    (g.random((n, k)) < g.beta(0.3 * s, 0.7 * s, (n, 1))).ravel(),
                    clusters=np.repeat(np.arange(n), k).tolist(),
                ), 0.3, runs, seed,
            )  # fmt: skip


def means(runs: int, seed: int) -> Iterator[Row]:
    for n in (5, 8, 16, 32, 64):
        for name, shape in SHAPES.items():
            yield coverage("mean", f"{n} {name}", lambda g, n=n, shape=shape: st.mean(shape(g, (n,))), 1.0, runs, seed)
    for clusters, each in ((4, 4), (8, 2), (8, 4), (16, 2)):
        for name, shape in SHAPES.items():
            yield coverage(
                "mean, clusters", f"{clusters} clusters of {each} {name}, correlation 0.56",
                lambda g, c=clusters, k=each, shape=shape: clustered(g, c, k, shape), 1.0, runs, seed,
            )  # fmt: skip
    for n in (2, 3, 5):
        yield coverage(
            "mean, symmetric", f"{n} seeds, normal",
            lambda g, n=n: st.mean(g.normal(1, 1, n), symmetric=True), 1.0, runs, seed,
        )  # fmt: skip


def clustered(generator: Generator, clusters: int, each: int, shape: Callable[..., Floats]) -> st.Estimate:
    """Neighbouring windows: part of each value is its cluster's."""
    own, shared = shape(generator, (clusters, each)), shape(generator, (clusters, 1))
    weight = sqrt(0.56)
    values = 1 + weight * (shared - 1) + sqrt(1 - 0.56) * (own - 1)
    return st.mean(values.ravel(), clusters=np.repeat(np.arange(clusters), each).tolist())


def profiles(runs: int, seed: int) -> Iterator[Row]:
    """Columns of a depth profile: means over images, from the Poisson weights that each image carries."""
    for n in (24, 48, 78, 128, 359):
        for name in ("normal", "lognormal 0.5", "exponential"):
            yield coverage(
                "profile column", f"{n} images, {name}",
                lambda g, n=n, shape=SHAPES[name]: profiled(g, shape(g, (n,))), 1.0, runs, seed,
            )  # fmt: skip


def profiled(generator: Generator, values: Floats) -> st.Estimate:
    weights = poisson_weights(generator.integers(0, 2**63, len(values)).astype(np.uint64))
    replicates = np.concatenate([[values.mean()], weights @ values / weights.sum(1)])[:, None]
    low, high = student_interval(replicates, np.array([len(values)]))
    ends = (None, None) if np.isnan(low[0]) else (float(low[0]), float(high[0]))
    level = 0.95 if ends[0] is not None else 0.0
    return st.Estimate(float(values.mean()), *ends, len(values), None, level)


def rises(runs: int, seed: int) -> Iterator[Row]:
    """Losses of sequences around 3 nats per token; without a block each is larger by a skewed amount of its own."""
    for n in (8, 16, 32):
        for name, shape in SHAPES.items():
            yield coverage(
                "rise", f"{n} sequences, {name} increments", lambda g, n=n, shape=shape: risen(g, n, shape),
                0.02, runs, seed,
            )  # fmt: skip


def risen(generator: Generator, n: int, shape: Callable[..., Floats], margin: float | None = None) -> st.Estimate:
    before = generator.gamma(25, 3 / 25, n)
    return st.rise(before, before * (1 + 0.02 * shape(generator, (n,))), margin)


def crossed_losses(
    generator: Generator,
    items: int,
    sets: int,
    spread: float,
    loss: float = 0.0,
    right: float = 0.5,
    lasting: float = 0.0,
) -> Floats:
    """(items, sets) differences of right/wrong: items differ in difficulty and effect, sets shift all items.

    spread: standard deviation of the sets' own loss, cut at two so that no probability leaves 0 to 1.
    lasting: share of items that are right before and wrong after whatever the set, and as many the other way.
    """
    room = min(right, 1 - right)
    difficulty = right + room * 0.3 * generator.choice([-1.0, 1.0], (items, 1))
    effect = room * 0.2 * generator.choice([-1.0, 1.0], (items, 1))
    shift = np.clip(generator.normal(0, spread, (1, sets)), -2 * spread, 2 * spread) if spread else np.zeros((1, sets))
    before = generator.random((items, sets)) < difficulty
    after = generator.random((items, sets)) < np.clip(difficulty + effect - loss - shift, 0, 1)
    fate = generator.random((items, 1))
    return np.where(fate < lasting, 1.0, np.where(fate < 2 * lasting, -1.0, before.astype(np.float64) - after))


def crossings(runs: int, seed: int) -> Iterator[Row]:
    for items in (12, 24, 48, 78, 359):
        for sets in (2, 3, 5):
            for spread in (0.0, 0.05, 0.1, 0.2):
                yield coverage(
                    "two_way_mean", f"{items} items, {sets} sets, s.d. {spread:g}",
                    lambda g, i=items, j=sets, s=spread: st.two_way_mean(crossed_losses(g, i, j, s)), 0.0, runs, seed,
                )  # fmt: skip
    for seeds in (3, 5):
        for spread, lasting in ((0.0, 0.0), (0.005, 0.0), (0.01, 0.0), (0.0, 0.004), (0.005, 0.02)):
            yield coverage(
                "two_way_mean", f"359 images at 96 % right, {seeds} seeds, s.d. {spread:g}, {lasting:.1%} lasting",
                lambda g, j=seeds, s=spread, la=lasting: st.two_way_mean(
                    crossed_losses(g, 359, j, s, right=0.96, lasting=la)
                ), 0.0, runs, seed,
            )  # fmt: skip
        for name, shape in SHAPES.items():
            yield coverage(
                "two_way_mean, losses", f"16 sequences, {seeds} seeds, {name}",
                lambda g, j=seeds, shape=shape: st.two_way_mean(
                    shape(g, (16, 1)) + 0.3 * g.normal(size=(1, j)) + 0.3 * g.normal(size=(16, j)), shares=False
                ), 1.0, runs, seed,
            )  # fmt: skip


def kappas(runs: int, seed: int) -> Iterator[Row]:
    """Answers that follow the wanted label in a share of items and are drawn by frequency in the others."""
    for items in (12, 24, 78, 359):
        for share, frequency in ((0.0, 0.5), (0.3, 0.5), (0.0, 0.75), (0.3, 0.75)):
            yield coverage(
                "cohen_kappa", f"{items} items, true {share:g}, labels {frequency:.0%}",
                lambda g, n=items, s=share, f=frequency: st.cohen_kappa(*followed(g, n, 1, s, f, 0.0)[:2]),
                share, runs, seed,
            )  # fmt: skip
        for spread in (0.0, 0.1, 0.2):
            yield coverage(
                "cohen_kappa, sets", f"{items} items, 3 sets, s.d. {spread:g}",
                lambda g, n=items, s=spread: st.cohen_kappa(*followed(g, n, 3, 0.4, 0.5, s)[:2]), 0.4, runs, seed,
            )  # fmt: skip


def followed(
    generator: Generator, items: int, sets: int, share: float, frequency: float, spread: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    wanted = (generator.random(items) >= frequency).astype(np.int64)
    drawn = (generator.random((items, sets)) >= frequency).astype(np.int64)
    shift = np.clip(generator.normal(0, spread, (1, sets)), -2 * spread, 2 * spread) if spread else 0.0
    answers = np.where(generator.random((items, sets)) < share + shift, wanted[:, None], drawn)
    return (answers[:, 0] if sets == 1 else answers), wanted


def rounds(runs: int, seed: int) -> Iterator[Row]:
    for n in (2, 3, 5, 6, 7, 10, 15, 20):
        for name in ("normal", "lognormal 1"):
            middle = 1.0 if name == "normal" else float(np.exp(-0.5))
            yield coverage(
                "median", f"{n} rounds, {name}", lambda g, n=n, name=name: st.median(SHAPES[name](g, (n,))), middle,
                runs, seed,
            )  # fmt: skip
    for n in (3, 7, 20):
        yield coverage("ratio", f"{n} rounds on a busy machine", lambda g, n=n: busy_ratio(g, n), 2.0, runs, seed)
    for n in (5, 7, 20):
        yield coverage(
            "exponent", f"{n} rounds at 5 lengths",
            lambda g, n=n: st.exponent({T: T**1.5 * g.lognormal(0, 0.1, n) for T in (128, 256, 512, 1024, 2048)}),
            1.5, runs, seed,
        )  # fmt: skip
    for n in (5, 7, 20):
        yield coverage("crossover", f"{n} rounds at 6 lengths", lambda g, n=n: crossing(g, n), 512.0, runs, seed)


def busy_ratio(generator: Generator, n: int) -> st.Estimate:
    load = generator.lognormal(0, 0.5, n)
    return st.ratio(2 * load * generator.lognormal(0, 0.1, n), load * generator.lognormal(0, 0.1, n))


def crossing(generator: Generator, n: int) -> st.Estimate:
    lengths = (64, 128, 256, 1024, 2048, 4096)  # as fast as each other at 512
    found = st.crossover(
        {T: T**1.3 * generator.lognormal(0, 0.2, n) for T in lengths},
        {T: 512**0.3 * T * generator.lognormal(0, 0.2, n) for T in lengths},
    )
    return found.length or st.Estimate(float("nan"), None, None, n, None, 0.0, "no crossing")


def best_of_many(runs: int, seed: int) -> Iterator[Row]:
    """The lowest of eight equal mechanisms, told with its interval."""
    for seeds in (2, 3, 5):
        yield coverage(
            "chosen", f"best of 8, {seeds} seeds", lambda g, n=seeds: lowest(g, (8, n), symmetric=True), 1.0, runs, seed
        )
    yield coverage("chosen", "best of 8, 16 windows", lambda g: lowest(g, (8, 16), symmetric=False), 1.0, runs, seed)


def lowest(generator: Generator, size: tuple[int, int], *, symmetric: bool) -> st.Estimate:
    losses = SHAPES["normal" if symmetric else "exponential"](generator, size)
    best = losses[losses.mean(1).argmin()]
    return st.chosen(st.mean(best, symmetric=symmetric, level=st.simultaneous(len(losses))), len(losses))


# Decisions. `settle` is the one place where a study's estimates become verdicts.


def settle(estimates: Sequence[st.Estimate], margin: float) -> list[st.Verdict | None]:
    """All judged findings of one study, by the frame that every study goes through."""
    effects = [
        Effect(f"part-{number}", "", "Removing a part", ACCURACY, estimate, judged=True)
        for number, estimate in enumerate(estimates)
    ]
    return [finding.verdict for finding in frame.settle(effects, margin=margin)]


def any_false(estimates: Sequence[st.Estimate], margin: float) -> bool:
    """Every true loss is the margin: any verdict is false."""
    return any(verdict != "undecided" for verdict in settle(estimates, margin))


@lru_cache(maxsize=1 << 16)
def _counted(worse: int, better: int, n: int, margin: float) -> st.Estimate:
    lost = np.zeros(n)
    lost[:worse], lost[n - better :] = 1, -1
    return st.accuracy_loss(lost > 0, lost < 0, margin)


def accuracy_study(generator: Generator, blocks: int, n: int, better: float, margin: float = 0.01) -> bool:
    """Each block's removal makes as many items wrong as the margin says, beside those it puts right."""
    counts = generator.multinomial(n, [margin + better, better, 1 - margin - 2 * better], size=blocks)
    return any_false([_counted(int(b), int(c), n, margin) for b, c, _ in counts], margin)


def language_study(
    generator: Generator, blocks: int, n: int, shape: Callable[..., Floats], shared: float = 0.0
) -> bool:
    """shared: how much of the sequences' increments is the same for every block."""
    common, own = shape(generator, (1, n)), shape(generator, (blocks, n))
    increments = 0.01 * (1 + sqrt(shared) * (common - 1) + sqrt(1 - shared) * (own - 1))
    before = generator.gamma(25, 3 / 25, n)
    return any_false([st.rise(before, before * (1 + row), 0.01) for row in increments], 0.01)


def icl_study(generator: Generator, findings: int, items: int, sets: int, spread: float) -> bool:
    found = [st.two_way_mean(crossed_losses(generator, items, sets, spread, loss=0.01), 0.01) for _ in range(findings)]
    return any_false(found, 0.01)


def mlp_study(generator: Generator, seeds: int, spread: float, lasting: float) -> bool:
    found = [
        st.two_way_mean(crossed_losses(generator, 359, seeds, spread, 0.01 / (1 - 2 * lasting), 0.95, lasting), 0.01)
        for _ in range(3)
    ]
    return any_false(found, 0.01)


def sweep_study(generator: Generator, sets: int, spread: float) -> bool:
    """Five numbers of demonstrations, all truly equal up to the margin: is "no more is gained" said of any?"""
    gains = [st.two_way_mean(crossed_losses(generator, 78, sets, spread, loss=0.01), 0.01) for _ in range(10)]
    return any_false(gains, 0.01)


def depth_study(generator: Generator, layers: int, n: int, better: float) -> bool:
    """Every layer but the last is worse by exactly the margin: none may be called useful."""
    last = generator.random(n) < 0.9
    kept, gained = 1 - (0.01 + 0.1 * better) / 0.9, better
    rows = [np.where(last, generator.random(n) < kept, generator.random(n) < gained) for _ in range(layers)]
    return st.useful_depth([*rows, last], 0.01).layer < layers


def override_study(generator: Generator, items: int, sets: int) -> bool:
    """Always the same label, but for a few, classes 75 to 25: is agreement beyond chance claimed?"""
    wanted = (generator.random(items) >= 0.75).astype(np.int64)
    answers = (generator.random((items, sets)) >= 0.95).astype(np.int64)
    found = st.cohen_kappa(answers if sets > 1 else answers[:, 0], wanted)
    return found.covers and found.low is not None and found.low > 0


def studies(runs: int, seed: int) -> Iterator[Row]:
    runs = max(100, runs // 2)
    for blocks in (6, 12, 30, 32):
        for n, better in ((195, 0.0), (200, 0.02), (300, 0.0), (359, 0.0), (359, 0.02), (400, 0.0), (1000, 0.0)):
            yield decisions(
                "verdicts, accuracy", f"{blocks} blocks, {n} items, {better:.0%} better",
                lambda g, m=blocks, n=n, b=better: accuracy_study(g, m, n, b), runs, seed,
            )  # fmt: skip
    for blocks in (6, 12, 30, 32):
        for name, shape in SHAPES.items():
            yield decisions(
                "verdicts, language", f"{blocks} blocks, 16 sequences, {name}",
                lambda g, m=blocks, shape=shape: language_study(g, m, 16, shape), runs // 2, seed,
            )  # fmt: skip
    yield decisions(
        "verdicts, language", "30 blocks, 16 sequences, lognormal 0.75, shared 0.5",
        lambda g: language_study(g, 30, 16, SHAPES["lognormal 0.75"], 0.5), runs // 2, seed,
    )  # fmt: skip
    for findings, least in ((24, 4), (192, 40)):
        for sets in (2, 3, 5):
            for spread in (0.0, 0.05, 0.1, 0.15):
                yield decisions(
                    "verdicts, icl", f"{findings} findings, 48 items, {sets} sets, s.d. {spread:g}",
                    lambda g, m=findings, j=sets, s=spread: icl_study(g, m, 48, j, s), max(50, runs // least), seed,
                )  # fmt: skip
    for seeds in (3, 5):
        for spread, lasting in ((0.0, 0.0), (0.01, 0.0), (0.0, 0.004), (0.005, 0.02)):
            yield decisions(
                "verdicts, mlp", f"3 variants, {seeds} seeds, s.d. {spread:g}, {lasting:.1%} lasting",
                lambda g, j=seeds, s=spread, la=lasting: mlp_study(g, j, s, la), runs, seed,
            )  # fmt: skip
    for sets in (3, 5):
        for spread in (0.05, 0.1):
            yield decisions(
                "verdicts, sweep", f"{sets} sets, s.d. {spread:g}",
                lambda g, j=sets, s=spread: sweep_study(g, j, s), runs // 2, seed,
            )  # fmt: skip
    for n in (200, 359, 1000):
        for better in (0.0, 0.2):
            yield decisions(
                "useful_depth", f"11 layers, {n} items, {better:.0%} put right",
                lambda g, n=n, b=better: depth_study(g, 11, n, b), runs, seed,
            )  # fmt: skip
    for items, sets in ((78, 1), (359, 1), (78, 3), (78, 5)):
        yield decisions(
            "cohen_kappa > 0", f"one label for 95 % of {items} items, {sets} sets",
            lambda g, n=items, j=sets: override_study(g, n, j), runs, seed,
        )  # fmt: skip


def whole_studies(runs: int, seed: int) -> Iterator[Row]:
    """Records as a run writes them, through the study's own effects, verdicts and choice of what is shown."""
    runs = max(100, runs // 5)
    for blocks in (6, 12, 30):
        for items, better in ((359, 0.0), (1000, 0.02)):
            yield decisions(
                "depth from records", f"{blocks} blocks, {items} images, {better:.0%} better",
                lambda g, m=blocks, n=items, b=better: whole.depth_study(g, m, n, b), runs, seed,
            )  # fmt: skip
        for name in ("normal", "lognormal 0.75"):
            yield decisions(
                "language blocks from records", f"{blocks} blocks, 16 sequences, {name}",
                lambda g, m=blocks, s=SHAPES[name]: whole.language_study(g, m, 16, s), runs, seed,
            )  # fmt: skip
    for sets in (2, 3, 5):
        for spread in (0.0, 0.1):
            yield decisions(
                "icl from records", f"12 tasks, 48 items, {sets} sets, s.d. {spread:g}",
                lambda g, j=sets, s=spread: whole.icl_study(g, 12, 48, j, s), runs, seed,
            )  # fmt: skip
    for seeds in (3, 5):
        yield decisions(
            "mlp from records", f"2 variants, {seeds} seeds, 359 images, s.d. 0.005",
            lambda g, j=seeds: whole.mlp_study(g, j, 359, 0.005), runs, seed,
        )  # fmt: skip


SIMULATIONS: dict[str, Callable[[int, int], Iterator[Row]]] = {
    "accuracy": accuracy_losses,
    "rates": rates,
    "means": means,
    "profiles": profiles,
    "rises": rises,
    "crossed": crossings,
    "kappa": kappas,
    "rounds": rounds,
    "best": best_of_many,
    "studies": studies,
    "records": whole_studies,
}


def table_line(row: Row) -> str:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    numbers = " | ".join(share(value) for value in (row.covers, row.below, row.above, row.shown, row.false))
    return f"| {row.rule} | {row.setting} | {numbers} | {'yes' if row.holds else 'NO'} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs: 200 instead of 1500")
    parser.add_argument("--only", default="", help="simulations whose name holds this: " + ", ".join(SIMULATIONS))
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    runs, started = 200 if options.quick else 1500, time.monotonic()
    rows: list[Row] = []
    print("| rule | simulated | covers % | below % | above % | shown % | false % | holds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, simulation in SIMULATIONS.items():
        if options.only in name:
            for row in simulation(runs, options.seed):
                rows.append(row)
                print(table_line(row), flush=True)
    failed = [row for row in rows if not row.holds]
    print(f"\n{len(rows)} rows, {len(failed)} miss their promise, {time.monotonic() - started:.0f} s")
    if options.out:
        options.out.write_text(json.dumps([asdict(row) | {"holds": row.holds} for row in rows], indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
