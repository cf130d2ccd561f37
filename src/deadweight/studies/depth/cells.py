"""What the cells about one vision model share: their parameters, sources and size; and how figures of models differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from deadweight.lab import Cell, Json, Record
from deadweight.probes.model_facts import fingerprint
from deadweight.report import Figure
from deadweight.studies.frame.models import ModelRef, model_name
from deadweight.studies.frame.quantity import ACCURACY, AGREEMENT, Quantity


def cell_about(
    study: Any, kind: str, ref: ModelRef, *, needs: Sequence[str] = (), effort: float = 1.0, exclusive: bool = False,
    more: dict[str, Json] | None = None, version: int | None = None,
) -> Cell:  # fmt: skip
    """A cell of `kind` about one model; `effort` is its work beside leaving out every block in turn."""
    sources: dict[str, str] = {}
    if ref.source is not None:
        sources["vision"] = fingerprint(study.models.model(ref))
    data = study.models.images(ref)
    sources["images"] = data.fingerprint
    params: dict[str, Json] = {
        **ref.params, "images": study.images, "limit": study.limit, "batch_size": study.batch_size,
        "dtype": study.dtype, "trained": study.trained and ref.trained, **(more or {}),
    }  # fmt: skip
    seconds = effort * (2 + len(data.validation) / 20)
    trained_by = (ref.cell,) if ref.cell is not None else ()
    return Cell(
        study.kind, kind, params, (*trained_by, *needs), sources, study.version if version is None else version,
        exclusive=exclusive, seconds=seconds,
    )  # fmt: skip


def judged(record: Record) -> bool:
    """Whether what a cell about a model found may be judged: trained weights that tell the classes apart."""
    return bool(record.cell.params.get("trained")) and bool(record.result.get("works"))


def measure(record: Record) -> Quantity:
    """What was lost: accuracy, or agreement with the intact model where the head knows other classes."""
    return AGREEMENT if record.result["measure"] == "agreement" else ACCURACY


def of_model(figure: Figure, record: Record, models: int) -> Figure:
    """The figure, told apart from those of other models where there are any."""
    if models < 2:
        return figure
    name = model_name(record.cell)
    return dataclasses.replace(figure, id=f"{figure.id}-{record.key[:6]}", title=f"{name}: {figure.title}")


def plain_rows(frame: pd.DataFrame) -> list[Json]:
    """The rows of a table as JSON has them: None for NaN."""
    table = frame.astype(object)
    rows: list[Json] = table.where(table.notna(), None).to_dict("records")
    return rows


__all__ = ["cell_about", "judged", "measure", "of_model", "plain_rows"]
