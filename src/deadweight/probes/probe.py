"""What a probe is, and the list of them. A new probe is a file that makes one of these and a line here."""

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
    from deadweight.probes.readout import Reading

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What of a model decides which probes make sense; `fingerprint` tells two models apart.

    outputs: classes its head tells apart, 0 without a linear head.
    """

    fingerprint: str
    family: str
    kind: str
    depth: int
    has_cls: bool
    position_kind: str
    reads: str
    outputs: int = 0


def applies(facts: Facts) -> str | None:
    """A probe for every model."""
    return None


def needs_images(facts: Facts) -> str | None:
    return None if facts.kind == "vision" else "defined for the patches of an image, and this is a language model"


def needs_head(facts: Facts) -> str | None:
    return needs_classes(facts) or (None if facts.outputs else "the model has no linear head to compare with")


def needs_classes(facts: Facts) -> str | None:
    return None if facts.kind == "vision" else "class metrics need one label an input, and this is a language model"


@dataclass(frozen=True)
class ImageProbe:
    """A mean over images of per-image values.

    measure:  (layer, the block's input at rows of blocks else None) -> name -> (B,) values; {} where it has none.
    measures: the names; by default the column's own.
    combine:  means by name -> the column; by default the first measure's mean.
    lacks:    why a model has no such column, None if it has.
    attention: whether it looks at the attention map, which is then computed; of vision models only.
    A layer's tensors live in memory that the layers after it use again: a probe keeps none of them.
    """

    column: str
    about: str
    measure: Callable[[Layer, Layer | None], Mapping[str, Tensor]]
    measures: tuple[str, ...] = ()
    combine: Callable[[Mapping[str, Floats]], Floats] | None = None
    lacks: Callable[[Facts], str | None] = applies
    attention: bool = False

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
    """A mean over the items of the sample of what a cross-fitted readout says of each; NaN items are left out.

    head: whether it compares with the model's own answers, so that the labels must be the head's.
    """

    column: str
    about: str
    items: Callable[[Reading], Floats]
    lacks: Callable[[Facts], str | None] = needs_classes
    head: bool = False


@dataclass(frozen=True)
class HeadProbe:
    """A function of the (C, F) weights of the head's last layer and the (C, F) class means of what it is given."""

    column: str
    about: str
    compute: Callable[[Floats, Floats], float]
    lacks: Callable[[Facts], str | None] = needs_head


@dataclass(frozen=True)
class R2s:
    """Held-out R² of the two ridge probes of a row: from the token itself, and from everything."""

    own: float
    everything: float


@dataclass(frozen=True)
class MomentProbe:
    """A function of the two R² of a row."""

    column: str
    about: str
    compute: Callable[[R2s], float]
    lacks: Callable[[Facts], str | None] = needs_images


Probe: TypeAlias = ImageProbe | ClassProbe | ReadoutProbe | HeadProbe | MomentProbe

# In the order of the table's columns; probes of other packages follow.
_OURS = {
    "raw_similarity": "similarity:RAW_SIMILARITY",
    "centered_similarity": "similarity:CENTERED_SIMILARITY",
    "cls_similarity": "similarity:CLS_SIMILARITY",
    "pe_dominance": "positions:PE_DOMINANCE",
    "influence": "influence:INFLUENCE",
    "aci": "consensus:ACI",
    "cls_centrality": "consensus:CLS_CENTRALITY",
    "cls_attention": "consensus:CLS_ATTENTION",
    "r2_self": "scrambling_fit:R2_SELF",
    "r2_all": "scrambling_fit:R2_ALL",
    "isi": "scrambling_fit:ISI",
    "nc1": "collapse:NC1",
    "nc2": "collapse:NC2",
    "nc3": "collapse:NC3",
    "nc4": "readout:NC4",
    "margin": "readout:MARGIN",
    "ncm_accuracy": "readout:NCM_ACCURACY",
    "probe_accuracy": "readout:PROBE_ACCURACY",
}
PROBES: Registry[Probe] = Registry(
    "probe", check=lambda it: isinstance(it, (ImageProbe, ClassProbe, ReadoutProbe, HeadProbe, MomentProbe))
)
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
