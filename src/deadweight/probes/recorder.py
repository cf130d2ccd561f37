"""Hooks that turn one forward pass into what the states keep; no activation outlives the layer that follows it."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deadweight.anatomy import Anatomy
from deadweight.anatomy.parts import stream
from deadweight.errors import InputError
from deadweight.probes.attention_maps import AttentionWatch
from deadweight.probes.hashes import Hashes
from deadweight.probes.heads import last_linear
from deadweight.probes.kinds import ImageProbe
from deadweight.probes.layer import HEAD_INPUT, Labels, Layer
from deadweight.probes.positions import position_rows
from deadweight.probes.scratch import Scratch, keep_pages
from deadweight.probes.states.batch import Batch
from deadweight.probes.states.positions import PositionNorms
from deadweight.probes.states.scrambling_sums import ScramblingSums

_GIVEN = 2  # where the input of a block goes that is not the row before


class Recorder:
    """Watches the parts of a model while it is entered; :meth:`batch` collects what the last forward pass left.

    `remarks` gathers sentences about what was met on the way, for the profile's notes. `scrambling` is brought up to
    date row by row, where it is asked for; attention maps are computed for the rows in `layers` alone.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        probes: Sequence[ImageProbe],
        *,
        features: bool,
        scrambling: ScramblingSums | None = None,
        layers: Collection[int] | None = None,
    ) -> None:
        self.anatomy, self.probes, self.features = anatomy, probes, features
        self.rows = anatomy.depth + 2
        self.remarks: set[str] = set()
        self.scrambling = scrambling
        mapped = [probe for probe in probes if probe.attention and anatomy.kind == "vision"]
        self._mapped = set(range(1, self.rows - 1) if layers is None else layers) if mapped else set()
        self._watch = AttentionWatch()
        self._scratch = [Scratch() for _ in range(3)]  # for layers by turns, since one outlives the next; and `_GIVEN`
        self._turn = 0
        self._copies = True  # whether inputs of blocks are copied: in the first batch, and where it is needed
        self._in_place = False
        self._handles: list[RemovableHandle] = []
        self.clear()

    def clear(self, mask_BN: Tensor | None = None, fold: npt.NDArray[np.bool_] | None = None) -> None:
        """Forget the last batch; of the next one, `mask_BN` says which tokens count, `fold` where its images belong."""
        self._fold = fold
        self._scrambled = self._strayed = False
        self._positions = PositionNorms()
        self._sizes: dict[int, Tensor] = {}  # to tell where numbers stop being finite
        self._measures: dict[str, dict[int, Tensor]] = {}
        self._features: dict[str, dict[int, Tensor]] = {}
        self._mask = mask_BN
        self._head: Tensor | None = None
        self._embeddings: Tensor | None = None
        self._input: Tensor | None = None
        self._own_input: Tensor | None = None
        self._outputs: list[weakref.ref[Tensor]] = []
        self._last: tuple[Tensor, Layer] | None = None

    def __enter__(self) -> Recorder:
        keep_pages()
        try:
            anatomy = self.anatomy
            self._handles.append(anatomy.embedding.register_forward_hook(self._on_embedding))
            for block in anatomy.blocks:
                before, after = self._on_input(block.index), self._on_block(block.index)
                self._handles.append(block.module.register_forward_pre_hook(before, with_kwargs=True))
                self._handles.append(block.module.register_forward_hook(after))
            if anatomy.norm is not None:
                self._handles.append(anatomy.norm.register_forward_hook(self._on_norm))
            head = last_linear(anatomy)
            if head is not None and anatomy.kind == "vision":
                self._handles.append(head.register_forward_pre_hook(self._on_head))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self._watch.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def _on_embedding(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._embeddings = self.anatomy.embedding_tokens(stream(output))
        if self._embeddings is not None:  # a copy: some models add the positional encoding in place
            self._embeddings = self._embeddings.clone()

    def _on_input(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._input = stream(args[0] if args else next(iter(kwargs.values())))
            if index == 0:
                self._measure(0, self._input, None)
            self._own_input = self._input.clone() if self._copies else None
            if index + 1 in self._mapped:
                self._watch.open()

        return hook

    def _on_block(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            tokens = stream(output)
            self._outputs.append(weakref.ref(tokens))
            attention = self._attention(index + 1, tokens)
            self._measure(index + 1, tokens, self._before(), attention)
            self._input = self._own_input = None

        return hook

    @torch.inference_mode()
    def _before(self) -> Layer | None:
        """The layer a block was given: the row before if that is what it was given, and is still what it was."""
        given, copied = self._input, self._own_input
        if given is None:
            return None
        row = self._last[1] if self._last is not None and self._last[0] is given else None
        if copied is None:
            return row or self._layer(given, self._scratch[_GIVEN])
        before = self._layer(copied, self._scratch[_GIVEN])
        if not torch.equal(copied, given) or (row is not None and not torch.equal(row.norms, before.norms)):
            self._in_place = True
        return before

    def _on_norm(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The first norm over the last block's tokens; models may apply theirs to earlier rows too."""
        tokens, last, row = stream(output), self._last, self.rows - 1
        if last is None or row in self._sizes or row - 1 not in self._sizes:
            return
        of = [output() is args[0] for output in self._outputs] if args else []
        earlier = any(of) and not of[-1]
        if tokens.shape[:-1] == last[0].shape[:-1] and not earlier:
            self._measure(row, tokens, None)

    def _on_head(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.features and args and args[0].dim() == 2:
            self._head = _own(args[0])

    @torch.inference_mode()
    def _attention(self, row: int, tokens: Tensor) -> Tensor | None:
        """(B, T, T) the block's attention map; None, with a remark, where it has not one over all tokens."""
        if row not in self._mapped:
            return None
        seen = self._watch.close()
        items, count = len(tokens), tokens[0].numel() // tokens.shape[-1]
        if len(seen) == 1 and seen[0].shape[:1] == (items,) and seen[0].shape[2:] == (count, count):
            with torch.autocast(tokens.device.type, enabled=False):
                return seen[0].head_mean()
        mapped = ", ".join(probe.column for probe in self.probes if probe.attention)
        if not seen:
            self.remarks.add(f"{mapped}: no softmax attention was seen in {self.row_name(row)[14:]}")
        elif len(seen) > 1:
            self.remarks.add(f"{mapped}: {self.row_name(row)[14:]} attends {len(seen)} times")
        else:
            self.remarks.add(f"{mapped}: attention is windowed: each token sees a part of the image only")
        return None

    @torch.inference_mode()
    def _measure(self, row: int, tokens: Tensor, before: Layer | None, attention: Tensor | None = None) -> None:
        if row in self._sizes:
            raise InputError(
                f"{self.row_name(row)} was seen twice in one forward pass",
                expected="every block to run once in a forward pass",
                cure="profile a model whose blocks are modules of their own: shared or looped ones have no row each",
            )
        with torch.autocast(tokens.device.type, enabled=False):
            layer = self._layer(tokens, self._scratch[self._turn], row == 0, attention)
            self._turn = 1 - self._turn
            size_B = layer.norms.sum(1)
            self._sizes[row] = (size_B if layer.cls is None else size_B + layer.cls.abs().sum(1)).double()
            for probe in self.probes:
                for name, values_B in probe.measure(layer, before).items():
                    self._measures.setdefault(name, {})[row] = values_B.to(torch.float64, copy=True)
            if row == 0:
                self._positions = PositionNorms.of(layer)
            if self.features:
                self._features.setdefault("pooled", {})[row] = _own(layer.mean)
                if layer.cls is not None:
                    self._features.setdefault("cls", {})[row] = _own(layer.cls)
            if self.scrambling is not None:
                self._scramble(row, layer)
        self._last = (tokens, layer)

    def _scramble(self, row: int, layer: Layer) -> None:
        assert self.scrambling is not None  # asked before
        if row == 0:
            given = self._embeddings
            fits = given is not None and given.dim() == 3 and given.shape[:2] == layer.patches.shape[:2]
            if fits and given is not None and self._fold is not None:
                self._scrambled = True
                self.scrambling.start(given.to(layer.patches.dtype), self._fold)
        if not self._scrambled:
            self.remarks.add("r2_self, r2_all, isi: the patches and the embeddings do not go one to one")
            return
        if layer.patches.shape[:2] != self._embeddings.shape[:2]:  # type: ignore[union-attr]  # it started
            if not self._strayed:
                self._strayed = True
                said = f"from {self.row_name(row)} on, tokens are not the patches any more"
                self.remarks.add(f"r2_self, r2_all, isi: {said}")
            return
        self.scrambling.row(row, layer.centred, layer.mean, layer.cls)

    def _layer(self, tokens: Tensor, scratch: Scratch, first: bool = False, attention: Tensor | None = None) -> Layer:
        if self._fold is not None and len(tokens) != len(self._fold):
            raise InputError(
                f"a block's stream is of shape {tuple(tokens.shape)} for {len(self._fold)} inputs",
                expected="one stream (inputs, tokens, width)",
                cure="models that keep several streams side by side have no one profile",
            )
        tokens_BND = tokens.flatten(1, 2) if tokens.dim() == 4 else tokens
        if tokens_BND.dtype not in (torch.float32, torch.float64):
            kept = scratch.empty("tokens", tuple(tokens_BND.shape), torch.float32, tokens_BND.device)
            tokens_BND = kept.copy_(tokens_BND)
        prefix = self.anatomy.prefix_tokens
        patches_BND = tokens_BND[:, prefix:]
        cls_BD = tokens_BND[:, 0] if self.anatomy.has_cls and prefix else None
        mask = self._mask if self._mask is not None and self._mask.shape == patches_BND.shape[:2] else None
        if not first:
            return Layer(patches_BND, cls_BD, mask, attention=attention, scratch=scratch)
        embeddings, positions = self._encoding(patches_BND)
        return Layer(patches_BND, cls_BD, mask, embeddings, positions, scratch=scratch)

    def _encoding(self, patches_BND: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings before the positional encoding, and the encoding; measured where the model resamples it."""
        given = self._embeddings
        if given is None or self.anatomy.positions is None or given.shape != patches_BND.shape:
            return None, None
        embeddings_BND = given.to(patches_BND.dtype)
        rows_ND = position_rows(self.anatomy, patches_BND.shape[1])
        if rows_ND is None:
            self.remarks.add(
                "pe_dominance: the model resamples its positional encoding for this input size; "
                "taken as the difference between the first block's input and the embeddings"
            )
            return embeddings_BND, (patches_BND - embeddings_BND).mean(0)
        return embeddings_BND, rows_ND.to(patches_BND)

    def batch(self, index: int, hashes: Hashes, labels: Labels | None, predicted: Labels | None = None) -> Batch:
        """What the forward pass of batch number `index` left.

        Raises
        ------
        InputError
            A block did not run, or a layer holds NaN or infinity: the message says which layer and which batch.
        """
        self._complete(index)
        self._copies = self._in_place
        held = {name: torch.stack(self._spread(rows)).cpu().numpy() for name, rows in self._measures.items()}
        sizes_RB = torch.stack([self._sizes[row] for row in range(self.rows)]).cpu().numpy()
        if not np.isfinite(sizes_RB).all():
            row, item = (int(place) for place in np.argwhere(~np.isfinite(sizes_RB))[0])
            raise InputError(
                f"{self.row_name(row)} holds NaN or infinity in batch {index} (its item {item}, both counted from 0)",
                expected="finite activations",
                cure="look at that input; in float16, profile in bfloat16 or float32",
            )
        features = {
            f"{kind}.{row}": values.cpu().numpy()
            for kind, rows in self._features.items()
            for row, values in rows.items()
        }
        if self._head is not None:
            features[HEAD_INPUT] = self._head.cpu().numpy()
        if self._scrambled and self.scrambling is not None:
            self.scrambling.finish()
        return Batch(hashes, held, labels, features if labels is not None else {}, predicted, self._positions)

    def row_name(self, row: int) -> str:
        """How a person calls a row of the profile."""
        if row == 0:
            return "the input of the first block"
        if row == self.rows - 1:
            return "the output of the final norm"
        return f"the output of block {row} of {self.anatomy.depth} ({self.anatomy.blocks[row - 1].path})"

    def _complete(self, index: int) -> None:
        """Every row has its measures; without a final norm the last row repeats the last block's."""
        missing = [row for row in range(self.rows - 1) if row not in self._sizes]
        if missing:
            raise InputError(
                f"{self.row_name(missing[0])} was not seen in the forward pass of batch {index}",
                expected="every block to run once in a forward pass",
                cure="give the paths of the blocks that run: dw.anatomy(model, paths={'blocks': …, 'embedding': …})",
            )
        if self.rows - 1 not in self._sizes and self._last is not None:
            self.remarks.add(
                "there is no norm over all tokens after the last block: the last row repeats the last block's output"
            )
            self._measure(self.rows - 1, self._last[0], None)

    def _spread(self, rows: Mapping[int, Tensor]) -> list[Tensor]:
        """One tensor a row, NaN where there is nothing."""
        nothing = torch.full_like(next(iter(rows.values())), float("nan"))
        return [rows.get(row, nothing) for row in range(self.rows)]


def _own(values_BD: Tensor) -> Tensor:
    """A float32 copy: a window into the tokens would keep all of them for as long as the items are gathered."""
    return values_BD.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
