"""What became of a model that was compressed: before and after, with intervals, and how it was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadweight.notebook import table_html
from deadweight.statistics import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

MEANING = {
    "cosine": "cosine of the final feature with the original's",
    "agreement": "share of predictions that are the original's",
    "loss": "nats per token on held-out text",
    "divergence": "divergence from the original's predictions, nats per token",
}


@dataclass(frozen=True)
class Size:
    """parameters: unique; macs: of one item; bytes: of the weights in memory, shared ones once; seconds: a batch."""

    parameters: int
    macs: int
    bytes: int
    seconds: float

    def as_json(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Measured:
    """One measure on held-out inputs, before and after, and the change with its 95 % interval (after − before)."""

    name: str
    before: float
    after: Estimate
    change: Estimate

    def as_json(self) -> dict[str, Any]:
        return {
            "measure": self.name, "meaning": MEANING[self.name], "before": self.before, "after": self.after.value,
            "interval": [self.after.low, self.after.high], "change": self.change.value,
            "change_interval": [self.change.low, self.change.high], "n": self.after.n,
        }  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A plan that was built, refitted and tried: what was expected of it, and what it lost."""

    plan: Mapping[str, Any]
    parameters: int
    macs: int
    expected: float
    loss: float
    chosen: bool

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"plan": dict(self.plan)}


@dataclass(frozen=True)
class Compression:
    """The report of :func:`deadweight.compress`.

    asked:        the budget as numbers: parameters, macs.
    reached:      whether the model is within it; where not, `notes` say why.
    measures:     on inputs that nothing was fitted to or chosen by.
    blocks:       one row for each block: what each width, and doing without it, was expected to lose, and what it kept.
    front:        (parameters, macs, expected loss, plan) of allocations that are not both larger and worse than
                  another.
    candidates:   the plans that were built and tried.
    unit:         of losses in blocks, front and candidates.
    timed:        what `seconds` of a size are the time of.
    took:         seconds of the whole compression, by part.

    >>> import deadweight as dw, torch
    >>> pictures = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> report = dw.compress(dw.load("embedded:digits-vit"), [pictures], parameters=0.8).compression
    >>> report.after.parameters < report.before.parameters, [measure.name for measure in report.measures][0]
    (True, 'cosine')
    """

    asked: Mapping[str, float]
    reached: bool
    before: Size
    after: Size
    measures: tuple[Measured, ...]
    blocks: tuple[Mapping[str, Any], ...] = field(repr=False)
    front: tuple[Mapping[str, Any], ...] = field(repr=False)
    candidates: tuple[Candidate, ...] = field(repr=False)
    unit: str
    items: Mapping[str, int]
    timed: str
    took: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> DataFrame:
        """parameters, MACs, bytes and seconds: before, after, and the ratio."""
        from pandas import DataFrame

        before, after = self.before.as_json(), self.after.as_json()
        rows = [
            {"": name, "before": before[name], "after": after[name],
             "after / before": after[name] / before[name] if before[name] else float("nan")}
            for name in before
        ]  # fmt: skip
        return DataFrame(rows)

    def lines(self) -> list[str]:
        """What a model card says of it."""
        sizes = [
            f"{name}: {getattr(self.before, name):,} before, {getattr(self.after, name):,} after"
            for name in ("parameters", "macs")
        ]
        found = [
            f"{MEANING[m.name]}: {m.after.value:.4g} ({interval_text(m.after)}; {m.before:.4g} before)"
            for m in self.measures
        ]
        where = f"on {self.items['held out']} inputs that nothing was fitted to, with 95 % intervals"
        return [*sizes, *(f"{line}, {where}" for line in found), *self.notes]

    def table(self) -> DataFrame:
        """The measures on held-out inputs: before, after, its interval, the change and its interval."""
        from pandas import DataFrame

        return DataFrame([{**measure.as_json()} for measure in self.measures]).drop(columns="meaning")

    def allocation(self) -> DataFrame:
        """One row for each block."""
        from pandas import DataFrame

        return DataFrame([dict(row) for row in self.blocks])

    def pareto(self) -> DataFrame:
        """One row a point of the front, and one a candidate that was measured."""
        from pandas import DataFrame

        rows = [
            {"parameters": p["parameters"], "macs": p["macs"], "loss": p["loss"], "kind": "expected"}
            for p in self.front
        ]
        rows += [
            {"parameters": c.parameters, "macs": c.macs, "loss": c.loss, "kind": f"measured: {c.plan['name']}"}
            for c in self.candidates
        ]  # fmt: skip
        return DataFrame(rows)

    def chart(self, against: str = "parameters") -> Any:
        """The Pareto front as a chart: `against` parameters or macs."""
        from deadweight.compression.chart import front

        return front(self.pareto(), self.unit, against)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "schema": 1,
            "asked": dict(self.asked),
            "reached": self.reached,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "measures": [measure.as_json() for measure in self.measures],
            "blocks": [dict(row) for row in self.blocks],
            "front": [dict(row) for row in self.front],
            "candidates": [one.as_json() for one in self.candidates],
            "unit": self.unit,
            "items": dict(self.items),
            "timed": self.timed,
            "took": dict(self.took),
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        rows: list[list[Any]] = [
            [name, before, self.after.as_json()[name]] for name, before in self.before.as_json().items()
        ]
        rows += [[MEANING[m.name], m.before, m.after.value] for m in self.measures]
        return table_html("Compression", ["", "before", "after"], rows, notes=self.notes)


def interval_text(estimate: Estimate, sign: str = "") -> str:
    """Both ends, the one that the data bound, or what can be said in their place.

    >>> interval_text(Estimate(0.5, 0.4, 0.6, 20)), interval_text(Estimate(0.5, None, 0.6, 20))
    ('0.4 … 0.6', 'at most 0.6')
    >>> interval_text(Estimate(0.5, None, None, 1, label="one measurement"))
    'one measurement'
    """
    if estimate.low is not None and estimate.high is not None:
        return f"{estimate.low:{sign}.4g} … {estimate.high:{sign}.4g}"
    if estimate.high is not None:
        return f"at most {estimate.high:{sign}.4g}"
    return estimate.label if estimate.low is None else f"at least {estimate.low:{sign}.4g}"
