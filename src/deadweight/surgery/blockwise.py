"""Running a model one block at a time, whatever lies between its blocks.

To enter block i with a given residual stream the model itself is called with its blocks stood in for: the one before
returns that stream, block i stops the call and gives away how it was called. So masks, rotary tables, and what Swin
does between its stages come from the model's own code, and a walk costs no more than the parts outside the blocks. The
largest of those, the embedding of pictures, is stood in for too, where a try shows that a later block is called alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, anatomy
from deadweight.anatomy.parts import stream
from deadweight.errors import SurgeryError
from deadweight.surgery.calibration import Inputs


@dataclass(frozen=True)
class Call:
    """How a block is called; its first argument carries the residual stream."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def stream(self) -> Tensor:
        return stream(self.args[0] if self.args else next(iter(self.kwargs.values())))


class _Reached(Exception):
    def __init__(self, call: Call) -> None:
        super().__init__("a block was reached")
        self.call = call


class BlockwiseRun:
    """A model whose blocks are run one by one.

    Raises
    ------
    SurgeryError
        The blocks do not run in the order of the anatomy.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[Block], example: Inputs) -> None:
        self.model, self.blocks = model, blocks
        self._shapes: list[Any] = []
        self._pictures = example.args[0].shape[1:] if example.args and example.args[0].dim() == 4 else None
        self._embedding = anatomy(model).embedding if self._pictures is not None else None
        self._embedded: Tensor | None = None
        self._look(example)
        if self._embedded is not None and not self._forgets(example):
            self._embedded = None

    def enter(self, inputs: Inputs, index: int, after: Tensor | None = None) -> Call:
        """The call of block `index` on a batch, where the block before it returned the stream `after`."""

        def reached(*args: Any, **kwargs: Any) -> Any:
            raise _Reached(Call(args, kwargs))

        stand_ins = {**self._stand_ins(index, after), self.blocks[index].module: reached}
        blank = None if after is None else self._blank(inputs)
        if blank is not None and self._embedding is not None:
            stand_ins[self._embedding] = lambda *args, **kwargs: blank
        try:
            with _forwards(stand_ins):
                inputs.call(self.model)
        except _Reached as found:
            return found.call
        raise SurgeryError(f"block {index} ({self.blocks[index].path}) was not reached", expected="blocks run in order")

    def resume(self, inputs: Inputs, index: int, after: Tensor | None) -> Any:
        """What the model returns for a batch whose stream is `after` once block `index` − 1 has run (None for 0)."""
        with _forwards(self._stand_ins(index, after)):
            return inputs.call(self.model)

    def _stand_ins(self, index: int, after: Tensor | None) -> dict[nn.Module, Callable[..., Any]]:
        """For the blocks before `index`: each lets its stream through, the last one gives `after`."""

        def stand_in(number: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                given = number == index - 1 and after is not None
                return self._shaped(number, after if given else Call(args, kwargs).stream)  # type: ignore[arg-type]

            return forward

        return {block.module: stand_in(block.index) for block in self.blocks[:index]}

    def run(self, index: int, call: Call) -> Tensor:
        """The residual stream after block `index`."""
        return stream(self.blocks[index].module(*call.args, **call.kwargs))

    def _blank(self, inputs: Inputs) -> Tensor | None:
        """Zeros in the place of embedded pictures, where nothing of them is left at the block that is entered."""
        if self._embedded is None or not inputs.args or inputs.args[0].shape[1:] != self._pictures:
            return None
        return self._embedded.new_zeros(inputs.items, *self._embedded.shape[1:])

    def _forgets(self, example: Inputs) -> bool:
        """Whether the last block is called alike, whatever was embedded."""
        last = len(self.blocks) - 1
        if last == 0:
            return False
        after = stream(self._shapes[last - 1])
        blank, embedded = self.enter(example, last, after), self._embedded
        self._embedded = None
        whole, self._embedded = self.enter(example, last, after), embedded
        return _same((blank.args, dict(blank.kwargs)), (whole.args, dict(whole.kwargs)))

    def _shaped(self, number: int, tokens: Tensor) -> Any:
        """`tokens` in what block `number` returns: itself, or a tuple that starts with it."""
        seen = self._shapes[number]
        return tokens if isinstance(seen, Tensor) else type(seen)((tokens, *seen[1:]))

    def _look(self, example: Inputs) -> None:
        order: list[int] = []
        outputs: dict[int, Any] = {}
        handles = []
        for block in self.blocks:

            def note(module: nn.Module, args: Any, output: Any, index: int = block.index) -> None:
                order.append(index)
                outputs[index] = output

            handles.append(block.module.register_forward_hook(note))

        def note_embedded(module: nn.Module, args: Any, output: Any) -> None:
            self._embedded = output if isinstance(output, Tensor) and output.shape[0] == example.items else None

        if self._embedding is not None:
            handles.append(self._embedding.register_forward_hook(note_embedded))
        try:
            example.call(self.model)
        finally:
            for handle in handles:
                handle.remove()
        if order != list(range(len(self.blocks))):
            raise SurgeryError(
                f"the blocks of this {type(self.model).__name__} ran in the order {order}",
                expected="each block once, in the order of dw.anatomy(model).blocks",
            )
        self._shapes = [outputs[index] for index in order]


def _same(one: Any, two: Any) -> bool:
    """Whether two calls hold equal tensors at the same places."""
    if isinstance(one, Tensor) or isinstance(two, Tensor):
        return isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two)
    if isinstance(one, (tuple, list)):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(_same(value, two[name]) for name, value in one.items())
    return True


@contextmanager
def _forwards(stand_ins: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Other `forward` methods for some modules, for a while."""
    before = {module: module.__dict__.get("forward") for module in stand_ins}
    for module, forward in stand_ins.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, old in before.items():
            if old is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = old
