"""The values an anatomy is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

Kind = Literal["vision", "causal_lm"]
Positions = Literal["learned", "sinusoidal", "rotary", "relative", "none"]


@dataclass(frozen=True)
class MlpPaths:
    """The linear layers of one MLP, as absolute module paths.

    up:     what reads the residual stream: one layer, or gate and up of a gated MLP.
    down:   what writes back to it.
    inner:  modules of hidden width in between (a norm inside the MLP), to be narrowed alike.
    packed: gate and up lie in one layer, the gate half first (timm's GluMlp, SwiGLUPacked).
    hidden: number of hidden units (of one half, where packed).
    """

    path: str
    up: tuple[str, ...]
    down: str
    hidden: int
    inner: tuple[str, ...] = ()
    packed: bool = False

    @property
    def gated(self) -> bool:
        return self.packed or len(self.up) > 1


class MlpOfBlock(nn.Module):
    """An MLP whose layers its block holds itself, as OPT's: all that is said of MLPs holds for it, but that the block
    calls it; what it is given goes to its first layer.

    Call with what the first layer is given, [..., width]; gives what the last one writes.
    """

    def __init__(self, block: nn.Module, up: str, down: str, activation: nn.Module) -> None:
        super().__init__()
        self._names = (up, down)
        self._activation = [activation]  # the block's own, no part of its weights
        for name in self._names:
            self.add_module(name, block.get_submodule(name))

    @property
    def first(self) -> nn.Module:
        return self.get_submodule(self._names[0])

    def forward(self, x: Tensor) -> Tensor:
        up, down = (self.get_submodule(name) for name in self._names)
        written: Tensor = down(self._activation[0](up(x)))
        return written

    @classmethod
    def of(cls, block: nn.Module, up: str, down: str, activation: nn.Module) -> MlpOfBlock:
        """The block's one, as long as its layers are the same: blocks that share their layers share it too."""
        known = block.__dict__.get(_KEPT)
        if not (
            isinstance(known, cls)
            and known._names == (up, down)
            and all(known.get_submodule(name) is block.get_submodule(name) for name in (up, down))
        ):
            known = cls(block, up, down, activation)
            block.__dict__[_KEPT] = known  # beside its submodules, so that no path leads there
        return known

    def put_into(self, block: nn.Module) -> None:
        """Let another block use these layers."""
        for name in self._names:
            setattr(block, name, self.get_submodule(name))
        block.__dict__[_KEPT] = self


_KEPT = "_deadweight_mlp"


def entrance(mlp: nn.Module) -> nn.Module:
    """The module that is called with what an MLP is given: itself, or the first layer of one without a module.

    >>> layer = nn.Linear(2, 2)
    >>> entrance(layer) is layer
    True
    """
    return mlp.first if isinstance(mlp, MlpOfBlock) else mlp


@dataclass(frozen=True)
class Block:
    """One transformer block. Parts a block does not have are None."""

    index: int
    path: str
    module: nn.Module = field(repr=False)
    attention: nn.Module | None = field(repr=False, default=None)
    attention_path: str | None = None
    mlp: nn.Module | None = field(repr=False, default=None)
    mlp_paths: MlpPaths | None = None
    norms: tuple[nn.Module, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a model are.

    Attributes
    ----------
    family:          the adapter that found the parts, e.g. ``"timm"``.
    kind:            ``"vision"`` or ``"causal_lm"``.
    blocks:          the transformer blocks in the order they run.
    embedding:       turns pixels or token ids into vectors; `embedding_tokens` makes its output (B, N, D).
    positions:       the learned positional encoding (a Parameter or an Embedding), None where there is none.
    position_kind:   learned | sinusoidal | rotary | relative | none.
    prefix_tokens:   tokens before the patches: CLS, registers, distillation; 0 for language models.
    has_cls:         whether token 0 is a CLS token.
    reads:           what the head reads: ``cls``, ``pooled`` (mean of patches) or ``last`` (causal models).
    norm, head:      the final norm and the readout, None where there is none.
    width, heads:    residual width D, attention heads (0 when it cannot be told).

    Examples
    --------
    >>> import deadweight as dw
    >>> parts = dw.anatomy(dw.load("embedded:digits-vit"))
    >>> parts.kind, parts.depth, parts.blocks[0].path
    ('vision', 6, 'blocks.0')
    """

    model: nn.Module = field(repr=False)
    family: str
    kind: Kind
    blocks: tuple[Block, ...]
    embedding: nn.Module = field(repr=False)
    embedding_path: str
    positions: nn.Module | nn.Parameter | None = field(repr=False, default=None)
    positions_path: str | None = None
    position_kind: Positions = "none"
    prefix_tokens: int = 0
    has_cls: bool = False
    reads: Literal["cls", "pooled", "last"] = "pooled"
    norm: nn.Module | None = field(repr=False, default=None)
    norm_path: str | None = None
    head: nn.Module | None = field(repr=False, default=None)
    head_path: str | None = None
    width: int = 0
    heads: int = 0
    blocks_path: str | None = None
    embedding_tokens: Callable[[Tensor], Tensor] = field(repr=False, default=lambda tokens: tokens)

    @property
    def depth(self) -> int:
        return len(self.blocks)


def stream(output: object) -> Tensor:
    """The residual stream (B, N, D) in whatever a block returns: a tensor, or a tuple that starts with it."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"a block returned {type(output).__name__}, expected a tensor or a tuple that starts with one")
    return output


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a Linear or of GPT-2's Conv1D, whose weight is transposed."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows, columns = weight.shape
    return (rows, columns) if is_transposed(layer) else (columns, rows)


def is_transposed(layer: nn.Module) -> bool:
    """Whether `layer` keeps its weight as (inputs, outputs), as Hugging Face's Conv1D does."""
    return type(layer).__name__ == "Conv1D"
