"""Where parameters should sit: the cheapest choice of widths, shared MLPs and dropped blocks under a budget (ours).

What a choice loses at one place was measured by the survey, and losses are taken to add up. With a price on what is
spent, each place then chooses for itself, but for pairs of neighbours that share, which a dynamic programme over the
chain of blocks settles; the price is found by bisection. Sweeping the price gives the Pareto front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from deadweight.compression.plan import Plan
from deadweight.compression.survey import Pair, Site, Survey
from deadweight.surgery.narrow import units_kept

_FINE = 4  # steps between two widths that were looked at
_MIXES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the two prices, where both parameters and MACs are bounded
_NEVER = float("inf")


@dataclass(frozen=True)
class Sizes:
    """Parameters, and multiply-accumulates of one item."""

    parameters: float
    macs: float

    def within(self, limit: Sizes) -> bool:
        return self.parameters <= limit.parameters and self.macs <= limit.macs


@dataclass(frozen=True)
class _Choice:
    loss: float
    parameters: int
    macs: int
    units: tuple[tuple[int, int], ...] = ()
    shared: tuple[Pair, ...] = ()
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Allowed:
    """Which kinds of change a plan may make."""

    widths: bool = True
    sharing: bool = True
    depth: bool = True
    even: bool = False  # the same share at every width

    def within(self, other: Allowed) -> bool:
        """Whether `other` allows all of this."""
        pairs = ((self.widths, other.widths), (self.sharing, other.sharing), (self.depth, other.depth))
        return all(theirs or not mine for mine, theirs in pairs)

    @property
    def name(self) -> str:
        if self.even:
            return "one width for all"
        named = {"widths": self.widths, "sharing": self.sharing, "depth": self.depth}
        return " + ".join(name for name, allowed in named.items() if allowed)


class Allocation:
    """The choices at every place of a model of size `whole`."""

    def __init__(self, survey: Survey, whole: Sizes, allowed: Allowed) -> None:
        self.survey, self.whole, self.allowed = survey, whole, allowed
        self.singles = [self._singles(site) for site in survey.sites]
        where = {site.blocks: number for number, site in enumerate(survey.sites)}
        self.pairs: dict[int, _Choice] = {}  # by the number of the later site
        for pair in survey.pairs if allowed.sharing else ():
            number = where[(pair.blocks[1],)]
            self.pairs[number] = _Choice(pair.loss, survey.sites[number].mlp_parameters, 0, shared=(pair,))

    def best(self, limit: Sizes) -> Plan | None:
        """The plan of least expected loss within `limit`; None where there is none."""
        if self.allowed.even:
            return self._even(limit)
        mixes = [1.0 if limit.macs == _NEVER else 0.0] if _NEVER in (limit.macs, limit.parameters) else _MIXES
        found = [plan for mix in mixes if (plan := self._priced_out(limit, mix)) is not None]
        return min(found, key=lambda plan: plan.loss, default=None)

    def smallest(self) -> Plan:
        """The plan that spends least, whatever it loses."""
        return self._plan(self._chain(1e30, 1e30))

    def front(self, against: str = "parameters", points: int = 24) -> list[tuple[Sizes, Plan]]:
        """Plans none of which is both larger and worse than another, from the whole model down."""
        found: dict[tuple[float, float], Plan] = {}
        low, high = self._price_range()
        for number in range(points):
            price = low * (high / low) ** (number / (points - 1))
            chosen = self._chain(price, 0.0) if against == "parameters" else self._chain(0.0, price * self._macs_scale)
            size = self._size(chosen)
            found.setdefault((size.parameters, size.macs), self._plan(chosen))
        rows = [(Sizes(*size), plan) for size, plan in sorted(found.items(), reverse=True)]
        return [row for row in rows if not any(_better(other, row, against) for other in rows)]

    def size_of(self, plan: Plan) -> Sizes:
        """What is left of the model, as the search counts it."""
        saved = [0, 0]
        for site in self.survey.sites:
            if site.blocks[0] in plan.dropped:
                saved[0] += site.block_parameters
                saved[1] += site.block_macs
            elif site.blocks[0] in plan.units and site.paths is not None:
                gone = site.paths.hidden - plan.units[site.blocks[0]]
                saved[0] += gone * site.unit_parameters
                saved[1] += gone * site.unit_macs
            if any(pair.blocks[1] in site.blocks for pair in plan.shared):
                saved[0] += site.mlp_parameters
        return Sizes(self.whole.parameters - saved[0], self.whole.macs - saved[1])

    def _singles(self, site: Site) -> list[_Choice]:
        found = [_Choice(0.0, 0, 0)]
        if self.allowed.widths and site.paths is not None and site.losses:
            for share, loss in _between(site.losses).items():
                count = units_kept(site.paths.hidden, share)
                gone = site.paths.hidden - count
                if gone:
                    units = ((site.blocks[0], count),)
                    found.append(_Choice(loss, gone * site.unit_parameters, gone * site.unit_macs, units))
        if self.allowed.depth and site.dropped is not None:
            drop = (site.blocks[0],)
            found.append(_Choice(site.dropped, site.block_parameters, site.block_macs, dropped=drop))
        return found

    def _chain(self, price: float, macs_price: float) -> list[_Choice]:
        """The choices of least loss + price · what is left, no two neighbours dropped."""

        def cost(choice: _Choice) -> float:
            return choice.loss - price * choice.parameters - macs_price * choice.macs

        start: dict[bool, tuple[float, list[_Choice]]] = {False: (0.0, [])}
        states = [start]  # by whether the last block is dropped
        for number, singles in enumerate(self.singles):
            after: dict[bool, tuple[float, list[_Choice]]] = {}

            def offer(state: tuple[float, list[_Choice]], choice: _Choice, into=after) -> None:  # type: ignore[no-untyped-def]
                gone, total = bool(choice.dropped), state[0] + cost(choice)
                if gone not in into or total < into[gone][0]:
                    into[gone] = (total, [*state[1], choice])

            best_kept = min((c for c in singles if not c.dropped), key=cost)
            drops = [c for c in singles if c.dropped]
            for was_gone, state in states[-1].items():
                offer(state, best_kept)
                if drops and not was_gone:
                    offer(state, drops[0])
            if number in self.pairs:
                for state in states[-2].values():
                    offer(state, self.pairs[number])
            states.append(after)
        return min(states[-1].values(), key=lambda state: state[0])[1]

    def _priced_out(self, limit: Sizes, mix: float) -> Plan | None:
        low, high = self._price_range()

        def at(price: float) -> list[_Choice]:
            return self._chain(price * mix, price * (1 - mix) * self._macs_scale)

        if not self._size(at(high)).within(limit):
            high = 1e30
            if not self._size(at(high)).within(limit):
                return None
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self._size(at(middle)).within(limit) else (middle, high)
        return self._filled(at(high), limit)

    def _filled(self, chosen: Sequence[_Choice], limit: Sizes) -> Plan:
        """Spend what is left of the budget on units, where one more saves most."""
        plan = self._plan(chosen)
        sites = {site.blocks[0]: site for site in self.survey.sites}
        units = dict(plan.units)
        while True:
            left = self.size_of(replace(plan, units=units))
            offers = []
            for block, count in units.items():
                site = sites[block]
                assert site.paths is not None  # it has a width
                room = min(
                    (limit.parameters - left.parameters) / max(site.unit_parameters, 1),
                    (limit.macs - left.macs) / max(site.unit_macs, 1),
                    site.paths.hidden - count,
                    max(1, site.paths.hidden // 32),
                )
                if room >= 1:
                    gain = _loss_at(site, count) - _loss_at(site, count + int(room))
                    offers.append((gain / (int(room) * site.unit_parameters), block, int(room)))
            if not offers:
                kept = {b: n for b, n in units.items() if n < sites[b].paths.hidden}  # type: ignore[union-attr]
                return replace(plan, units=kept, loss=self._expected(plan, kept))
            _, block, room = max(offers)
            units[block] += room

    def _expected(self, plan: Plan, units: Mapping[int, int]) -> float:
        sites = {site.blocks[0]: site for site in self.survey.sites}
        narrowed = sum(_loss_at(sites[block], count) for block, count in units.items())
        return narrowed + sum(p.loss for p in plan.shared) + sum(sites[b].dropped or 0.0 for b in plan.dropped)

    def _even(self, limit: Sizes) -> Plan | None:
        """One share for every MLP, as the paper has it, found by bisection."""
        sites = [site for site in self.survey.sites if site.losses and site.paths is not None]

        def at(share: float) -> Plan:
            units = {s.blocks[0]: units_kept(s.paths.hidden, share) for s in sites if s.paths is not None}
            return Plan(self.allowed.name, units, (), (), sum(_loss_at(s, units[s.blocks[0]]) for s in sites))

        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.size_of(at(middle)).within(limit) else (low, middle)
        return at(low) if self.size_of(at(low)).within(limit) else None

    @property
    def _macs_scale(self) -> float:
        """From a price of a parameter to one of a multiply-accumulate."""
        return self.whole.parameters / max(self.whole.macs, 1.0)

    def _price_range(self) -> tuple[float, float]:
        slopes = [
            choice.loss / choice.parameters
            for choice in [*(c for singles in self.singles for c in singles), *self.pairs.values()]
            if choice.parameters and choice.loss > 0
        ]
        return (min(slopes) / 1e3, max(slopes) * 1e3) if slopes else (1e-12, 1.0)

    def _size(self, chosen: Sequence[_Choice]) -> Sizes:
        return Sizes(
            self.whole.parameters - sum(c.parameters for c in chosen), self.whole.macs - sum(c.macs for c in chosen)
        )

    def _plan(self, chosen: Sequence[_Choice]) -> Plan:
        units = {block: count for choice in chosen for block, count in choice.units}
        shared = tuple(pair for choice in chosen for pair in choice.shared)
        dropped = tuple(block for choice in chosen for block in choice.dropped)
        return Plan(self.allowed.name, units, shared, dropped, sum(choice.loss for choice in chosen))


def _better(one: tuple[Sizes, Plan], other: tuple[Sizes, Plan], against: str) -> bool:
    smaller: bool = getattr(one[0], against) <= getattr(other[0], against)
    return smaller and one[1].loss < other[1].loss


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


__all__ = ["Allocation", "Allowed", "Sizes"]
