"""Where parameters should sit: the cheapest choice of moves at every place under a budget (ours).

What a choice loses at one place was measured by the survey, and losses are taken to add up. With a price on what is
spent, each place then chooses for itself, but for choices that span neighbours or exclude one another, which a dynamic
programme over the chain of blocks settles; the price is found by bisection. Sweeping the price gives the Pareto front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deadweight.compression.moves import MOVES, Choice
from deadweight.compression.plan import Plan
from deadweight.compression.survey import Survey

_MIXES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the two prices, where both parameters and MACs are bounded
_NEVER = float("inf")
_KEEP = Choice("", ())  # a place as it is
_State = dict[frozenset[str], tuple[float, list[Choice]]]  # by the moves that may not follow: cost, and what was chosen


@dataclass(frozen=True)
class Sizes:
    """Parameters, and multiply-accumulates of one item."""

    parameters: float
    macs: float

    def within(self, limit: Sizes) -> bool:
        return self.parameters <= limit.parameters and self.macs <= limit.macs


@dataclass(frozen=True)
class Allowed:
    """Which moves a plan may make, by name in the order of the list."""

    moves: tuple[str, ...]
    even: bool = False  # the same share at every width

    @classmethod
    def all_but(cls, *names: str) -> Allowed:
        """Every move but these."""
        return cls(tuple(move.name for move in MOVES if move.name not in names))

    def within(self, other: Allowed) -> bool:
        """Whether `other` allows all of this."""
        return set(self.moves) <= set(other.moves)

    @property
    def name(self) -> str:
        return "one width for all" if self.even else " + ".join(self.moves)


def kinds(allowed: Allowed) -> list[Allowed]:
    """Kinds of plan to try: all that is allowed, then less, in the order of how far a sum of losses can be trusted."""
    first, *others = MOVES
    fewer = [
        Allowed((first.name,)),
        Allowed((first.name,), even=True),
        *(Allowed.all_but(move.name) for move in reversed(others)),
    ]
    return [allowed, *(kind for kind in fewer if kind != allowed and kind.within(allowed))]


class Allocation:
    """The choices at every place of a model of size `whole`."""

    def __init__(self, survey: Survey, whole: Sizes, allowed: Allowed) -> None:
        self.whole, self.allowed = whole, allowed
        self.moves = {move.name: move for move in MOVES if move.name in allowed.moves}
        self.excluded = {
            name: frozenset(other for other, by in self.moves.items() if other in move.excludes or name in by.excludes)
            for name, move in self.moves.items()
        } | {"": frozenset[str]()}
        self.offered = [[c for c in choices if c.move in self.moves] for choices in survey.choices]
        where = {block: number for number, site in enumerate(survey.sites) for block in site.blocks}
        self.grouped = [self._grouped(choices, where) for choices in self.offered]

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
        return self._size(plan.choices)

    def _grouped(self, choices: Sequence[Choice], where: Mapping[int, int]) -> list[tuple[int, list[Choice]]]:
        """(places they decide about, choices) that exclude the same; leaving the place alone is one of them."""
        groups: dict[tuple[int, frozenset[str]], list[Choice]] = {(1, frozenset()): [_KEEP]}
        for choice in choices:
            places = len({where[block] for block in choice.blocks})
            groups.setdefault((places, self.excluded[choice.move]), []).append(choice)
        return [(places, group) for (places, _), group in sorted(groups.items(), key=lambda item: item[0][0])]

    def _chain(self, price: float, macs_price: float) -> list[Choice]:
        """The choices of least loss + price · what is left, none beside one that it excludes."""

        def cost(choice: Choice) -> float:
            return choice.loss - price * choice.parameters - macs_price * choice.macs

        states: list[_State] = [{frozenset(): (0.0, [])}]
        for groups in self.grouped:
            after: _State = {}
            for places, group in groups:
                if places > len(states):
                    continue
                choice = min(group, key=cost)
                becomes = self.excluded[choice.move]
                for barred, (total, chosen) in states[-places].items():
                    if choice.move not in barred and (becomes not in after or total + cost(choice) < after[becomes][0]):
                        after[becomes] = (total + cost(choice), [*chosen, choice])
            states.append(after)
        return min(states[-1].values(), key=lambda state: state[0])[1]

    def _priced_out(self, limit: Sizes, mix: float) -> Plan | None:
        low, high = self._price_range()

        def at(price: float) -> list[Choice]:
            return self._chain(price * mix, price * (1 - mix) * self._macs_scale)

        if not self._size(at(high)).within(limit):
            high = 1e30
            if not self._size(at(high)).within(limit):
                return None
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self._size(at(middle)).within(limit) else (middle, high)
        return self._filled(at(high), limit)

    def _filled(self, chosen: Sequence[Choice], limit: Sizes) -> Plan:
        """Spend what is left of the budget where it saves most, on choices that can take less than they do."""
        choices = [self.moves[choice.move].settled(choice) for choice in chosen if choice.move]
        while True:
            left = self._size(choices)
            offers: list[tuple[float, tuple[int, ...], int, Choice]] = []
            for number, choice in enumerate(choices):
                more = self.moves[choice.move].relax(choice, limit.parameters - left.parameters, limit.macs - left.macs)
                if more is not None:
                    gain = (choice.loss - more.loss) / max(choice.parameters - more.parameters, 1)
                    offers.append((gain, choice.blocks, number, more))
            if not offers:
                kept = [choice for choice in choices if choice.parameters or choice.macs]
                loss = sum(sum(choice.loss for choice in kept if choice.move == name) for name in self.moves)
                return replace(self._plan(kept), loss=loss)
            _, _, number, more = max(offers, key=lambda offer: offer[:2])
            choices[number] = more

    def _even(self, limit: Sizes) -> Plan | None:
        """One share for every place, found by bisection."""
        (move,) = (self.moves[name] for name in self.allowed.moves)
        offered = [choice for choices in self.offered for choice in choices]

        def at(share: float) -> Plan:
            return self._plan(move.uniform(offered, share) or ())

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
            for choices in self.offered
            for choice in choices
            if choice.parameters and choice.loss > 0
        ]
        return (min(slopes) / 1e3, max(slopes) * 1e3) if slopes else (1e-12, 1.0)

    def _size(self, chosen: Sequence[Choice]) -> Sizes:
        return Sizes(
            self.whole.parameters - sum(c.parameters for c in chosen), self.whole.macs - sum(c.macs for c in chosen)
        )

    def _plan(self, chosen: Sequence[Choice]) -> Plan:
        made = tuple(choice for choice in chosen if choice.move)
        return Plan(self.allowed.name, made, sum(choice.loss for choice in chosen))


def _better(one: tuple[Sizes, Plan], other: tuple[Sizes, Plan], against: str) -> bool:
    smaller: bool = getattr(one[0], against) <= getattr(other[0], against)
    return smaller and one[1].loss < other[1].loss


__all__ = ["Allocation", "Allowed", "Sizes", "kinds"]
