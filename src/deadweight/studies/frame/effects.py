"""An effect: one number a study estimates, with all that is needed to judge it, say it, draw it and act on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deadweight.report.wording import quantity as written
from deadweight.statistics import Estimate
from deadweight.studies.frame.quantity import Quantity
from deadweight.studies.frame.remedy import Remedy


@dataclass(frozen=True)
class Effect:
    """What removing a part does, or something else that was measured.

    id:        stable name within the study and subject, e.g. ``block-3``.
    subject:   whose: the model, named as a person would. Where a study has several, the frame tells them apart.
    removed:   what was done, as the start of a sentence: ``Removing block 3 of 12``.
    quantity:  what is measured, in which unit.
    estimate:  of the loss (before minus after) where the quantity is one, else of the quantity itself.
    baseline:  the quantity before, where it can be compared with after (an accuracy); None elsewhere.
    judged:    whether it gets a verdict; then it counts among all judged effects of the study.
    remedy:    what to do about it should it be dead weight (or, of a measurement, in any case).
    evidence:  keys of the cells it was computed from.
    statement: the whole sentence, for effects that are no removal.
    detail:    what stands in brackets after the numbers: ``5 seeds``.
    series:    effects of one series are alike (the blocks of a model); of a long one only the least needed are shown.
    shown:     whether it stands among the findings; what is not shown is judged, tabled and drawn all the same.
    """

    id: str
    subject: str
    removed: str
    quantity: Quantity
    estimate: Estimate
    baseline: float | None = None
    judged: bool = False
    remedy: Remedy | None = None
    evidence: tuple[str, ...] = ()
    statement: str = ""
    detail: str = ""
    series: str = ""
    shown: bool = True

    def __post_init__(self) -> None:
        if not self.quantity.unit:
            raise ValueError(f"effect {self.id!r} of {self.quantity.name!r} has no unit")
        if self.judged and not self.quantity.removal:
            raise ValueError(f"effect {self.id!r}: {self.quantity.name} is no loss from removal and cannot be judged")
        if not (self.statement or (self.removed and self.quantity.removal)):
            raise ValueError(f"effect {self.id!r} has neither a removed part nor a statement")
        plain = self.estimate.label == f"{100 * self.estimate.level:.3g} % interval"
        if self.judged and self.estimate.covers and plain and self.estimate.p is None:
            raise ValueError(f"effect {self.id!r} is judged but its estimate was not tested against a margin")


def sentence(effect: Effect) -> str:
    """The claim, without the subject's name.

    >>> from deadweight.statistics import Estimate
    >>> from deadweight.studies.frame.quantity import ACCURACY
    >>> sentence(Effect("block-3", "", "Removing block 3 of 12", ACCURACY, Estimate(0.023, 0.01, 0.04, 359, 0.01), 0.9))
    'Removing block 3 of 12 costs 2.3 points of accuracy (90.0 % → 87.7 %).'
    """
    if effect.statement:
        return effect.statement
    value, words = effect.estimate.value, effect.quantity
    size = written(float(f"{abs(value):.3g}"), words.unit)
    text = words.same if value == 0 else (words.lost if value > 0 else words.gained).format(size)
    notes = [_change(effect)] if effect.baseline is not None else []
    notes += [effect.detail] if effect.detail else []
    brackets = f" ({'; '.join(notes)})" if notes else ""
    return f"{effect.removed} {text}{brackets}."


def _change(effect: Effect) -> str:
    assert effect.baseline is not None
    before, after = effect.baseline, effect.baseline - effect.estimate.value
    return f"{100 * before:.1f} %" if before == after else f"{100 * before:.1f} % → {100 * after:.1f} %"


def tell_apart(effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """(id, claim) of each effect; where they are of several subjects, id and claim say whose they are.

    >>> from dataclasses import replace
    >>> from deadweight.statistics import Estimate
    >>> from deadweight.studies.frame.quantity import ACCURACY
    >>> one = Effect("depth", "small ViT", "", ACCURACY, Estimate(4, 4, 4, 1), statement="It is deep.")
    >>> tell_apart([one]), tell_apart([one, replace(one, subject="timm:vit")])[0]
    ([('depth', 'It is deep.')], ('small-vit-depth', 'small ViT: It is deep.'))
    """
    several = len({effect.subject for effect in effects} - {""}) > 1
    return [
        (f"{slug(effect.subject)}-{effect.id}", f"{effect.subject}: {sentence(effect)}")
        if several and effect.subject
        else (effect.id, sentence(effect))
        for effect in effects
    ]


def slug(name: str) -> str:
    """A name as part of an id: lower case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


__all__ = ["Effect", "replace", "sentence", "slug", "tell_apart"]
