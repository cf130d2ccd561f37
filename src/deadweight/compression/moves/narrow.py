"""Fewer hidden units in an MLP, its output layer refitted (ours; `visit.py` measures every width at once)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.compression.moves.move import Choice, Move
from deadweight.compression.visit import Site, Visit
from deadweight.surgery.calibration import Inputs
from deadweight.surgery.importance import best
from deadweight.surgery.log import record
from deadweight.surgery.narrow import narrow, units_kept
from deadweight.surgery.widths import note_width

_FINE = 4  # steps between two widths that were looked at


@dataclass(frozen=True)
class Width(Choice):
    """An MLP with `units` of its hidden units."""

    site: Site | None = None
    units: int = 0

    @property
    def key(self) -> Hashable:
        return *super().key, self.units  # type: ignore[misc]  # a tuple, of which all is hashed


class Narrow(Move):
    """MLPs keep the units that are most wanted."""

    name: ClassVar[str] = "widths"

    def measure(self, visit: Visit) -> list[Width]:
        """`_FINE` steps between the widths that were looked at, the loss in between on a line."""
        site = visit.widths()
        if site.paths is None or not site.losses:
            return []
        found = [
            self._at(site, units_kept(site.paths.hidden, share), loss) for share, loss in _between(site.losses).items()
        ]
        return [choice for choice in found if choice.parameters]

    def _at(self, site: Site, units: int, loss: float) -> Width:
        assert site.paths is not None
        gone = site.paths.hidden - units
        return Width(
            self.name, site.blocks, loss, gone * site.unit_parameters, gone * site.unit_macs,
            touches=site.blocks[:1], site=site, units=units,
        )  # fmt: skip

    def apply(
        self, small: nn.Module, choices: Sequence[Width], place: Mapping[int, int], inputs: Sequence[Inputs]
    ) -> None:
        """Narrow all of them, as one surgery."""
        parts = anatomy(small)
        shares = [1.0] * parts.depth
        changes: set[tuple[int, int]] = set()
        for choice in choices:
            site = choice.site
            assert site is not None
            assert site.order is not None  # it has widths
            at = [place[block] for block in site.blocks if block in place]
            paths = parts.blocks[at[0]].mlp_paths
            assert paths is not None  # the site has an order
            changes.add((paths.hidden, choice.units))
            for number in at:
                shares[number] = choice.units / paths.hidden
            narrow(small, paths, best(-site.order.argsort(), choice.units))
        if all(share < 1 for share in shares):
            note_width(small, parts.width, changes)
        record(small, "shallow_mlps", keep=shares, by="activation", refit="stream")

    def relax(self, choice: Width, parameters: float, macs: float) -> Width | None:
        """A few units more."""
        site = choice.site
        assert site is not None
        assert site.paths is not None
        more = min(
            parameters / max(site.unit_parameters, 1),
            macs / max(site.unit_macs, 1),
            site.paths.hidden - choice.units,
            max(1, site.paths.hidden // 32),
        )
        return self.settled(self._at(site, choice.units + int(more), 0.0)) if more >= 1 else None

    def uniform(self, choices: Sequence[Width], share: float) -> list[Width]:
        """One share for every MLP, as the paper has it (arXiv 2512.01059)."""
        sites = {choice.site.blocks: choice.site for choice in choices if choice.site is not None}
        return [
            self.settled(self._at(site, units_kept(site.paths.hidden, share), 0.0))
            for site in sites.values()
            if site.paths is not None
        ]

    def settled(self, choice: Width) -> Width:
        """With what is lost with just so many units, between the widths that were looked at."""
        assert choice.site is not None
        return replace(choice, loss=_loss_at(choice.site, choice.units))

    def as_json(self, choices: Sequence[Width]) -> dict[str, Any]:
        return {"units": {str(choice.blocks[0]): choice.units for choice in choices}}

    def row(self, choice: Width, block: int) -> dict[str, Any]:
        return {"kept": choice.units}


def _between(losses: Mapping[float, float]) -> dict[float, float]:
    """Losses by share, with `_FINE` steps between those that were looked at."""
    known = {1.0: 0.0, **losses}
    shares = sorted(known, reverse=True)
    found: dict[float, float] = {}
    for high, low in pairwise(shares):
        for step in range(1, _FINE + 1):
            part = step / _FINE
            found[high + (low - high) * part] = known[high] + (known[low] - known[high]) * part
    return found


def _loss_at(site: Site, count: int) -> float:
    """What a site loses with `count` units, between the widths that were looked at."""
    assert site.paths is not None
    share = count / site.paths.hidden
    known = {1.0: 0.0, **site.losses}
    if share <= min(known):
        return known[min(known)]
    high = min(one for one in known if one >= share)
    low = max(one for one in known if one <= share)
    if high == low:
        return known[high]
    return known[low] + (known[high] - known[low]) * (share - low) / (high - low)
