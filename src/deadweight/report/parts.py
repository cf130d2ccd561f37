"""What a page is made of: figures and tables, gathered in one section per study; and what to do about a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a study may describe its sections without paying for the import of altair and pandas
    from altair.typing import ChartType
    from pandas import DataFrame


@dataclass(frozen=True)
class Figure:
    """One chart.

    id:      unique on the page; letters, digits, ``-`` and ``_``.
    title:   what the chart shows, as a heading.
    caption: how to read it and where the numbers come from, in plain language.
    chart:   an altair chart, from :mod:`deadweight.report.charts` or the study's own. Leave its size, fonts
             and background alone: the page sets them, so that charts look alike and follow dark mode.
    """

    id: str
    title: str
    caption: str
    chart: ChartType


@dataclass(frozen=True)
class Table:
    """A table as the reader sees it: the frame's columns in their order, its index left out."""

    title: str
    frame: DataFrame
    caption: str = ""


@dataclass(frozen=True)
class Action:
    """What to do about a finding.

    sentence: in plain words, for somebody who has only read the finding.
    command:  what does it, as it is typed in a shell; empty where nothing is to be typed.
    """

    sentence: str
    command: str = ""


@dataclass(frozen=True)
class Section:
    """The part of the page that belongs to one study.

    id:       the study's name, unique on the page.
    question: what the study asks, as one question.
    lead:     one paragraph of plain text that answers it.
    """

    id: str
    title: str
    question: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
