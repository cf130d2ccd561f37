"""The charts of a compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadweight.errors import InputError
from deadweight.report import charts

if TYPE_CHECKING:
    from altair import LayerChart
    from pandas import DataFrame

_TITLES = {"parameters": "parameters (millions)", "macs": "multiply-accumulates of one item (billions)"}


def front(frame: DataFrame, unit: str, against: str = "parameters") -> LayerChart:
    """What each size is expected to lose, and what the plans that were tried did lose: of ``Compression.pareto()``."""
    if against not in _TITLES:
        raise InputError(f"a front against {against!r}", expected="parameters or macs")
    scale = 1e6 if against == "parameters" else 1e9
    some = frame[frame["loss"] > 0]
    log = len(some) > 1
    frame = (some if log else frame).assign(**{against: lambda rows: rows[against] / scale})
    return charts.scatter(
        frame, against, "loss", color="kind", x_title=_TITLES[against], y_title=f"loss: {unit}", y_log=log
    )


def widths(frame: DataFrame, unit: str) -> LayerChart:
    """What each block's MLP is expected to lose with half of its units: where the parameters are needed.

    frame: ``Compression.allocation()``.
    """
    frame = frame[frame["half"].notna()].assign(block=[str(number) for number in frame[frame["half"].notna()]["block"]])
    return charts.bars_with_intervals(frame, "block", "half", title=f"loss at half width: {unit}")
