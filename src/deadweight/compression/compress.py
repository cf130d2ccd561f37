"""``compress``: a smaller model out of a trained one, without training and without labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.compression.budget import budget_of
from deadweight.compression.distill import distill as distilled
from deadweight.compression.items import chunks, subsample, train_held_out_split
from deadweight.compression.measure import ROUNDS, compared
from deadweight.compression.moves import MOVES
from deadweight.compression.plan import Plan, cut, refit, target_for
from deadweight.compression.report import Candidate, Compression
from deadweight.compression.search import Allocation, Allowed, Sizes, kinds
from deadweight.compression.survey import Survey, Surveyor
from deadweight.compression.visit import TRIED
from deadweight.errors import InputError
from deadweight.meters import count
from deadweight.models.unwrap import unwrapped
from deadweight.surgery.calibration import Inputs, calibration, evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator

Module = TypeVar("Module", bound=nn.Module)
Note = Callable[[str, float], None]
FEW, LARGE = 2, 2e12  # plans that are tried of a model for which the survey's inputs take so many operations


def compress(
    model: Module,
    batches: Iterable[Any],
    *,
    parameters: float | None = None,
    macs: float | None = None,
    widths: bool = True,
    sharing: bool = True,
    depth: bool = True,
    distill: int = 0,
    note: Note | None = None,
) -> Module:
    """A copy of `model` within a budget, its output layers refitted in closed form; ``.compression`` is the report.

    Every block is looked at once (``compression/survey.py``) for what each move could do there: narrower MLPs, MLPs
    that neighbours share, dropped blocks (``compression/moves/``). A search allots the budget
    (``compression/search.py``); the few best plans are built, refitted and tried, and the best of them is refitted on
    all inputs and measured on inputs held out of all that. The surgeries are in its log, so that ``dw.save`` and
    ``dw.load("file:…")`` work as ever.

    Parameters
    ----------
    batches:
        Calibration inputs, no labels: a hundred images, or sequences with several times as many tokens as an MLP has
        units. Every fourth item is held out to measure on; of the others as many are used as a refit needs, at most
        5 tokens for each unit of the widest MLP (or 16,384).
    parameters, macs:
        The budget: a share of the original's (up to 1), or a number. One of them, or both.
    widths, sharing, depth:
        Which changes may be made.
    distill:
        Steps of training towards the original's outputs after that; 0 for none.
    note:
        Hears what is being done, and the share that is done.

    Raises
    ------
    InputError
        No budget, one that makes no sense, nothing that may be changed, or fewer than four items.

    Examples
    --------
    >>> import torch, deadweight as dw
    >>> pictures = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> small = dw.compress(dw.load("embedded:digits-vit"), [pictures], parameters=0.8)
    >>> small(pictures[:2]).shape, small.compression.reached
    (torch.Size([2, 10]), True)
    """
    limits = budget_of(parameters, macs)
    forbidden = [name for name, may in (("widths", widths), ("sharing", sharing), ("depth", depth)) if not may]
    allowed = Allowed.all_but(*forbidden)
    if not allowed.moves:
        raise InputError("nothing may be changed", expected="widths, sharing or depth")
    if distill < 0:
        raise InputError(f"distill={distill}", expected="a number of steps, 0 for none")
    model = unwrapped(model)
    work = _Work(model, calibration(model, batches, "compress"), note or (lambda text, done: None))
    with evaluating(model):
        small, report = work.run(limits, allowed, distill)
    small.compression = report  # type: ignore[assignment]  # a value beside the modules, not one of them
    return small  # type: ignore[return-value]  # a copy of `model`


class _Work:
    """One compression."""

    def __init__(self, model: nn.Module, inputs: Sequence[Inputs], note: Note) -> None:
        self.model, self.note = model, note
        self.took: dict[str, float] = {}
        self.notes: list[str] = []
        parts = anatomy(model)
        if all(block.mlp_paths is None for block in parts.blocks) and parts.depth < 2:
            raise InputError(
                f"this {type(model).__name__} has no MLP with known layers, and one block",
                expected="a transformer with MLPs of two or three linear layers",
                cure="see dw.anatomy(model).blocks for what was found",
            )
        self.causal = parts.kind == "causal_lm"
        learn, held = train_held_out_split(inputs)
        self.example = inputs[0].first()
        size = max(1, (1024 if self.causal else 4096) // max(1, self.example.tokens))
        rounds = -(-_items(held) // ROUNDS)  # a batch each, for the passes that measure are timed as well
        self.learn, self.held = chunks(learn, min(size, 64)), chunks(held, min(size, 64, rounds))
        self.counts = count(model, self._counted(self.example))

    def run(self, limits: dict[str, float], allowed: Allowed, steps: int) -> tuple[nn.Module, Compression]:
        whole = Sizes(self.counts.parameters, self.counts.macs)
        limit = Sizes(_limit(limits.get("parameters"), whole.parameters), _limit(limits.get("macs"), whole.macs))
        with self._timing("survey"):
            moves = [move for move in MOVES if move.name in allowed.moves]
            survey = Surveyor(self.model, self.learn, moves).run(lambda text, done: self.note(text, 0.4 * done))
        with self._timing("search"):
            plans, reached = self._plans(survey, whole, limit, allowed)
            front = Allocation(survey, whole, allowed).front("macs" if limits.keys() == {"macs"} else "parameters")
        target = target_for(self.model, self.example)
        with self._timing("candidates"):
            chosen, candidates = self._chosen(plans, survey, target)
        with self._timing("refit"):
            self.note("refitting the chosen plan", 0.6)
            small = cut(self.model, chosen, self.learn)
            refitted_on = subsample(self.learn, survey.enough)
            refit(small, self.model, chosen, refitted_on, target)
        if steps:
            with self._timing("distillation"):
                before, after = distilled(
                    small, self.model, self.learn, survey.evaluator, steps, lambda text, done: self.note(text, 0.8)
                )
                if not after < before:
                    self.notes.append(f"{steps} steps of distillation did not help, and their weights were not kept")
        small.eval()
        with self._timing("measurement"):
            self.note("measuring on held-out inputs", 0.85)
            measures, before_size, after_size, timed = compared(
                self.model, small, self.held, whole, self._size_of(small)
            )
        self.note("done", 1.0)
        report = Compression(
            asked={name: value for name, value in (("parameters", limit.parameters), ("macs", limit.macs))
                   if value < float("inf")},
            reached=reached,
            before=before_size, after=after_size, measures=measures,
            blocks=_rows(survey, chosen),
            front=tuple(
                {"parameters": size.parameters, "macs": size.macs, "loss": plan.loss, "plan": plan.as_json()}
                for size, plan in front
            ),
            candidates=candidates,
            unit="nats per token from the original's predictions" if self.causal else "1 − cosine of the final feature",
            items={
                "calibration": _items(self.learn), "refitted on": _items(refitted_on), "held out": _items(self.held),
            },
            timed=timed, took=self.took, notes=tuple(self.notes),
        )  # fmt: skip
        return small, report

    def _plans(self, survey: Survey, whole: Sizes, limit: Sizes, allowed: Allowed) -> tuple[list[Plan], bool]:
        """The plans worth trying, that of least expected loss first, and whether they are within the budget."""
        found: dict[Hashable, Plan] = {}
        for kind in kinds(allowed):
            plan = self._within(Allocation(survey, whole, kind), limit)
            if plan is not None:
                found.setdefault(plan.key, plan)
        if found:
            large = 2 * whole.macs * survey.looked_at > LARGE
            return list(found.values())[: FEW if large else None], True
        smallest = Allocation(survey, whole, allowed).smallest()
        size = self._real(smallest)
        asked = [f"{value:,.0f} {name}" for name, value in (("parameters", limit.parameters), ("MACs", limit.macs))
                 if value < float("inf")]  # fmt: skip
        self.notes.append(
            f"the budget of {' and '.join(asked)} is out of reach: with every change that is allowed "
            f"({allowed.name}) {size.parameters:,.0f} parameters and {size.macs:,.0f} MACs are left"
        )
        return [smallest], False

    def _within(self, allocation: Allocation, limit: Sizes) -> Plan | None:
        """The best plan whose size, counted on the model itself, is within the limit."""
        aim = limit
        for _ in range(4):
            plan = allocation.best(aim)
            if plan is None:
                return None
            real = self._real(plan)
            if real.within(limit):
                return plan
            counted = allocation.size_of(plan)
            aim = Sizes(
                aim.parameters - max(0.0, real.parameters - limit.parameters) - (real.parameters > limit.parameters),
                aim.macs - max(0.0, real.macs - limit.macs) * (1.02 if counted.macs else 1.0),
            )
        return None

    def _real(self, plan: Plan) -> Sizes:
        """What the model is counted to be once it is cut as planned."""
        return self._size_of(cut(self.model, plan.sized(), self.learn))

    def _size_of(self, model: nn.Module) -> Sizes:
        found = count(model, self._counted(self.example))
        return Sizes(found.parameters, found.macs)

    @staticmethod
    def _counted(example: Inputs) -> Any:
        return example.args or dict(example.kwargs)

    def _chosen(self, plans: Sequence[Plan], survey: Survey, target: str) -> tuple[Plan, tuple[Candidate, ...]]:
        """The plan that loses least once it is built, refitted on a few inputs and tried."""
        few = subsample(self.learn, max(4, survey.looked_at // 2))
        losses: list[float] = []
        sizes: list[Sizes] = []
        for number, plan in enumerate(plans):
            self.note(f"trying: {plan.name}", 0.4 + 0.2 * number / len(plans))
            small = cut(self.model, plan, self.learn)
            sizes.append(self._size_of(small))
            if len(plans) > 1:
                refit(small, self.model, plan, few, target)
                losses.append(survey.evaluator.evaluate(small).divergence)
        best = min(range(len(plans)), key=lambda place: losses[place]) if losses else 0
        tried = tuple(
            Candidate(plan.as_json(), int(size.parameters), int(size.macs), plan.loss, loss, place == best)
            for place, (plan, size, loss) in enumerate(zip(plans, sizes, losses, strict=False))
        )
        return plans[best], tried

    @contextmanager
    def _timing(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.took[part] = round(time.perf_counter() - began, 2)


def _limit(asked: float | None, whole: float) -> float:
    """As a number: shares up to 1 are of the whole."""
    if asked is None:
        return float("inf")
    return asked * whole if asked <= 1 else asked


def _items(batches: Sequence[Inputs]) -> int:
    return sum(batch.items for batch in batches)


def _rows(survey: Survey, plan: Plan) -> tuple[dict[str, Any], ...]:
    """One row per block: what was expected, and what was done."""
    made = {block: choice for choice in plan.choices for block in choice.blocks}
    moves = {move.name: move for move in MOVES}
    rows = []
    for site, offered in zip(survey.sites, survey.choices, strict=True):
        for block in site.blocks:
            hidden = None if site.paths is None else site.paths.hidden
            row: dict[str, Any] = {
                "block": block, "hidden": hidden, "kept": hidden, "shares_with": None, "dropped": False,
                "half": site.losses.get(TRIED), "without": None,
                "widths": {f"{share:g}": loss for share, loss in site.losses.items()},
            }  # fmt: skip
            for choice in offered:
                row |= moves[choice.move].expected(choice)
            if block in made:
                row |= moves[made[block].move].row(made[block], block)
            rows.append(row)
    return tuple(sorted(rows, key=lambda row: int(row["block"])))
