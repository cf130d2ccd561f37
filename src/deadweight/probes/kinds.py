"""What a probe is: one of five kinds, by the state its column is a function of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from deadweight.probes.layer import Layer
from deadweight.probes.packed_symmetric import Floats
from deadweight.probes.states.class_moments import ClassMoments
from deadweight.probes.states.feature_sample import Reading


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
