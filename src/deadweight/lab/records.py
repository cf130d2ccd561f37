"""Records: what came out of cells, and the collection of them a study's findings are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from deadweight.lab.cell import Cell, Json
from deadweight.notebook import table_html

if TYPE_CHECKING:
    from deadweight.lab.findings import Findings

SCHEMA = 3


@dataclass
class Outcome:
    """What a cell hands back.

    result:   deterministic from the seed; compared bit for bit between runs.
    measured: seconds, bytes, joules: what differs from run to run.
    context:  anything else worth keeping (notes, kernels that ran).
    """

    result: dict[str, Json]
    measured: dict[str, Json] = field(default_factory=dict)
    context: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One finished cell, as it is on disk.

    >>> record = Record(Cell("mlp", "train", {"seed": 0}), {"top1": 0.97}, {"seconds": 1.5}, {})
    >>> record.key == record.cell.key, record.result["top1"]
    (True, 0.97)
    """

    cell: Cell
    result: Mapping[str, Json]
    measured: Mapping[str, Json]
    context: Mapping[str, Json]

    @property
    def key(self) -> str:
        return self.cell.key

    def as_json(self) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "cell": self.cell.identity,
            "result": dict(self.result),
            "measured": dict(self.measured),
            "context": dict(self.context),
        }

    @classmethod
    def from_json(cls, text: Mapping[str, Json]) -> Record:
        return cls(Cell.from_json(text["cell"]), text["result"], text["measured"], text["context"])


@dataclass(frozen=True)
class Failure:
    """A cell that lacks its record, and what its last attempt said."""

    cell: Cell
    error: str
    attempts: int


class Records(Sequence[Record]):
    """Records in the order of their cells; `failed` lists the cells that lack one.

    >>> rows = [Record(Cell("mlp", "train", {"seed": seed}), {"top1": 0.9}, {}, {}) for seed in range(3)]
    >>> len(Records(rows)), len(Records(rows).where(seed=1)), list(Records(rows).table()["seed"])
    (3, 1, [0, 1, 2])
    """

    def __init__(
        self,
        records: Sequence[Record],
        failed: Sequence[Failure] = (),
        judge: Callable[[Records], Findings] | None = None,
    ) -> None:
        self._records = list(records)
        self.failed: list[Failure] = list(failed)
        self._judge = judge

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # slices are not offered
        return self._records[index]

    def _repr_html_(self) -> str:
        seconds = (record.measured.get("seconds") for record in self._records)
        rows = ((r.cell.study, r.cell.kind, r.cell.label, time) for r, time in zip(self._records, seconds, strict=True))
        notes = [f"failed: {failure.cell.label}: {failure.error}" for failure in self.failed]
        return table_html(f"{len(self)} records", ["study", "kind", "cell", "seconds"], rows, notes=notes)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def where(self, *, study: str | None = None, kind: str | None = None, **params: Json) -> Records:
        """The records whose study, kind and parameters are as given."""
        kept = [
            record
            for record in self._records
            if (study is None or record.cell.study == study)
            and (kind is None or record.cell.kind == kind)
            and all(record.cell.params.get(name) == value for name, value in params.items())
        ]
        lost = [failure for failure in self.failed if study is None or failure.cell.study == study]
        return Records(kept, lost, self._judge)

    def table(self) -> pd.DataFrame:
        """One row for each record: key, study, kind, the parameters, and every scalar of result and measured."""
        rows = []
        for record in self._records:
            row: dict[str, Json] = {"key": record.key, "study": record.cell.study, "kind": record.cell.kind}
            for part in (record.cell.params, record.result, record.measured):
                row |= {name: value for name, value in part.items() if not isinstance(value, (dict, list))}
            rows.append(row)
        return pd.DataFrame(rows)

    def findings(self) -> Findings:
        """What follows from these records; a function of them alone."""
        from deadweight.lab.findings import Findings

        return self._judge(self) if self._judge else Findings([])
