"""What a move of ``compress`` is: a change that a plan may make at a block, and what it costs and saves there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from deadweight.compression.visit import Visit
from deadweight.surgery.calibration import Inputs


@dataclass(frozen=True)
class Choice:
    """One change at one place; blocks are numbered as in the original.

    move:             the name of the move that offers it.
    blocks:           those it decides about, neighbours that end with the block it was measured at.
    loss:             what the model is expected to lose, on the scale of `Visit.end`.
    parameters, macs: what it saves; MACs are those of one item.
    touches:          blocks whose MLP's output layer is refitted afterwards.
    removes:          blocks that are dropped.
    """

    move: str
    blocks: tuple[int, ...]
    loss: float = 0.0
    parameters: int = 0
    macs: int = 0
    touches: tuple[int, ...] = ()
    removes: tuple[int, ...] = ()

    @property
    def key(self) -> Hashable:
        """Choices with equal keys do the same."""
        return self.move, self.blocks


class Move(ABC):
    """A kind of change. The survey, the search and the plan know moves by these methods alone.

    name:     as users allow or forbid it.
    excludes: moves that are not made beside it: at the block before what it decides about, or the one after.
    """

    name: ClassVar[str]
    excludes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def measure(self, visit: Visit) -> Sequence[Choice]:
        """What may be done at a block that is being visited; nothing where it does not apply."""

    def apply(  # noqa: B027  # a move that only removes blocks has nothing left to do
        self, small: nn.Module, choices: Sequence[Any], place: Mapping[int, int], inputs: Sequence[Inputs]
    ) -> None:
        """Make `choices` of this move in `small`, by surgeries that go into its log.

        What choices remove is gone already; `place` says where the other blocks are now.
        """

    def relax(self, choice: Any, parameters: float, macs: float) -> Choice | None:
        """A choice at the same place that loses less and spends at most so much more; None where there is none."""
        return None

    def uniform(self, choices: Sequence[Any], share: float) -> Sequence[Choice] | None:
        """One choice a place that keeps `share` of it, the same everywhere; None for a move without shares."""
        return None

    def settled(self, choice: Any) -> Choice:
        """The choice with the loss that is to be reported."""
        chosen: Choice = choice
        return chosen

    def sized(self, choice: Any) -> Choice:
        """A choice that leaves the same size and is the quickest to make, to count what is left."""
        chosen: Choice = choice
        return chosen

    def as_json(self, choices: Sequence[Any]) -> dict[str, Any]:
        """What a plan says of its choices."""
        return {self.name: [list(choice.blocks) for choice in choices]} if choices else {}

    def row(self, choice: Any, block: int) -> dict[str, Any]:
        """What the report's row of a block says of the choice that was made there."""
        return {"kept": 0, "dropped": True} if block in choice.removes else {}

    def expected(self, choice: Any) -> dict[str, Any]:
        """What that row says of a choice that was measured, made or not."""
        return {}
