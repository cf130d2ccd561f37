"""An experiment: one kind of cell, from the work it asks for to what its records say. A study is a list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from deadweight.errors import InputError
from deadweight.lab import Cell, Outcome, Record, Records, Workbench
from deadweight.report import Figure, Table
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.verdicts import Settled

if TYPE_CHECKING:
    from deadweight.studies.frame.study import Study

Options = Any  # the study's own options: each experiment reads those of the study that lists it


class Experiment(ABC):
    """One file, one kind of cell. An instance holds nothing: everything comes in and goes out as values.

    kind: of its cells, unique in the study. bytes_per_cell: what a cell is likely to leave on disk, for ``--dry-run``.
    """

    kind: ClassVar[str]
    bytes_per_cell: ClassVar[int] = 100_000

    @abstractmethod
    def cells(self, study: Options, subject: Any) -> list[Cell]:
        """The cells about one of the study's subjects; bad input is refused here, before any work."""

    @abstractmethod
    def run(self, study: Options, cell: Cell, bench: Workbench) -> Outcome:
        """Do one cell. ``result`` holds only what follows from the cell; times and joules are ``measured``."""

    @abstractmethod
    def effects(self, records: Records, margin: float) -> list[Effect]:
        """What the study's records say; the only place where this experiment estimates anything.

        records: of the whole study, so that what is timed in one cell can be held against what another measured.
        margin:  the loss one is willing to accept, against which estimates that are judged are tested.
        """

    def lead(self, records: Records, settled: Sequence[Settled], margin: float) -> list[str]:
        """Sentences that introduce this experiment on the page."""
        return []

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        """Its charts; by default one plot of intervals a unit, of what was judged."""
        from deadweight.studies.frame.page import interval_plots

        return interval_plots(f"{self.kind}", [pair.effect for pair in settled if pair.effect.judged], margin)

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        """Its tables; estimates come from `settled`, none is made here."""
        return []

    def own(self, records: Records) -> list[Record]:
        """The records of this experiment's cells."""
        return list(records.where(kind=self.kind))


class Derived(Experiment):
    """An experiment without cells of its own: it reads what others recorded."""

    def cells(self, study: Options, subject: Any) -> list[Cell]:
        return []

    def run(self, study: Options, cell: Cell, bench: Workbench) -> Outcome:
        raise InputError(f"a cell of kind {cell.kind!r}", expected="no cell: this experiment reads other records")

    def figures(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Figure]:
        return []


def check_experiments(study: type[Study], experiments: Iterable[Experiment]) -> None:
    """Refuse a study whose experiments do not fit together: two of one kind, or a kind without a name."""
    kinds = [experiment.kind for experiment in experiments]
    doubles = sorted({kind for kind in kinds if kinds.count(kind) > 1 or not kind})
    if doubles:
        raise TypeError(f"{study.__name__}: several experiments of the kind {', '.join(map(repr, doubles))}")


def check_effects(effects: Sequence[Effect]) -> None:
    """Refuse effects of one study that contradict each other: ids given twice, or one quantity in two units."""
    units: dict[str, str] = {}
    for effect in effects:
        unit = units.setdefault(effect.quantity.name, effect.quantity.unit)
        if unit != effect.quantity.unit:
            raise ValueError(f"{effect.quantity.name} is given in {unit!r} and in {effect.quantity.unit!r}")
    names = [(effect.subject, effect.id) for effect in effects]
    doubles = sorted({" ".join(name).strip() for name in names if names.count(name) > 1})
    if doubles:
        raise ValueError(f"effects with one id: {', '.join(doubles)}")


__all__ = ["Derived", "Experiment", "check_effects", "check_experiments"]
