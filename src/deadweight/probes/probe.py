"""What a probe is, and the list of them. A new probe is a file that makes one of these three and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from deadweight.errors import InputError
from deadweight.registry import Registry

if TYPE_CHECKING:
    from deadweight.probes.collapse import ClassMoments
    from deadweight.probes.layer import Layer
    from deadweight.probes.readout import NearestMeans

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What of a model decides which probes make sense; `fingerprint` tells two models apart."""

    fingerprint: str
    family: str
    kind: str
    depth: int
    has_cls: bool
    position_kind: str
    reads: str


def applies(facts: Facts) -> str | None:
    """A probe for every model."""
    return None


def needs_classes(facts: Facts) -> str | None:
    return None if facts.kind == "vision" else "class metrics need one label an input, and this is a language model"


@dataclass(frozen=True)
class ImageProbe:
    """A mean over images of per-image values.

    measure:  (layer, the block's input at rows of blocks else None) -> name -> (B,) values; {} where it has none.
    measures: the names; by default the column's own.
    combine:  means by name -> the column; by default the first measure's mean.
    lacks:    why a model has no such column, None if it has.
    """

    column: str
    about: str
    measure: Callable[[Layer, Layer | None], Mapping[str, Tensor]]
    measures: tuple[str, ...] = ()
    combine: Callable[[Mapping[str, Floats]], Floats] | None = None
    lacks: Callable[[Facts], str | None] = applies

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measures the column is made of."""
        return self.measures or (self.column,)

    def column_of(self, means: Mapping[str, Floats]) -> Floats | None:
        """The column out of means by name; None while nothing was measured."""
        if any(name not in means for name in self.names):
            return None
        return means[self.names[0]] if self.combine is None else self.combine(means)


@dataclass(frozen=True)
class ClassProbe:
    """A function of the class moments of one feature (``"cls.3"``)."""

    column: str
    about: str
    compute: Callable[[ClassMoments, str], float]
    lacks: Callable[[Facts], str | None] = needs_classes


@dataclass(frozen=True)
class ReadoutProbe:
    """A mean over the items of the sample of what a cross-fitted readout says of each; NaN items are left out."""

    column: str
    about: str
    items: Callable[[NearestMeans], Floats]
    lacks: Callable[[Facts], str | None] = needs_classes


Probe: TypeAlias = ImageProbe | ClassProbe | ReadoutProbe

# In the order of the table's columns; probes of other packages follow.
_OURS = {
    "raw_similarity": "similarity:RAW_SIMILARITY",
    "centered_similarity": "similarity:CENTERED_SIMILARITY",
    "cls_similarity": "similarity:CLS_SIMILARITY",
    "pe_dominance": "positions:PE_DOMINANCE",
    "influence": "influence:INFLUENCE",
    "nc1": "collapse:NC1",
    "nc2": "collapse:NC2",
    "margin": "readout:MARGIN",
    "ncm_accuracy": "readout:NCM_ACCURACY",
}
PROBES: Registry[Probe] = Registry("probe", check=lambda it: isinstance(it, (ImageProbe, ClassProbe, ReadoutProbe)))
for _name, _entry in _OURS.items():
    PROBES.add(_name, f"deadweight.probes.{_entry}")


def chosen(probes: str | Sequence[str]) -> tuple[str, ...]:
    """Names of probes in the order of the table's columns; ``"all"`` for every one.

    Raises
    ------
    InputError
        An unknown name, or none at all.
    """
    known = [*_OURS, *(name for name in PROBES.names() if name not in _OURS)]
    if isinstance(probes, str):
        probes = known if probes == "all" else [probes]
    wanted = list(probes)
    if not wanted:
        raise InputError("no probes", expected=f'"all" or some of {", ".join(known)}')
    for name in wanted:
        PROBES.get(name)
    return tuple(name for name in known if name in wanted)
