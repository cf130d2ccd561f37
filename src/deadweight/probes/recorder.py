"""Hooks that turn one forward pass into what the states keep; no activation outlives the layer that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deadweight.anatomy import Anatomy
from deadweight.anatomy.parts import stream
from deadweight.errors import InputError
from deadweight.probes.hashes import Hashes
from deadweight.probes.layer import Batch, Labels, Layer
from deadweight.probes.positions import position_rows
from deadweight.probes.probe import ImageProbe

_SIZE = "token_norm"  # measured at every row to tell where numbers stop being finite; no column


class Recorder:
    """Watches the parts of a model while it is entered; :meth:`batch` collects what the last forward pass left.

    `remarks` gathers sentences about what was met on the way, for the profile's notes.
    """

    def __init__(self, anatomy: Anatomy, probes: Sequence[ImageProbe], *, features: bool) -> None:
        self.anatomy, self.probes, self.features = anatomy, probes, features
        self.rows = anatomy.depth + 2
        self.remarks: set[str] = set()
        self._handles: list[RemovableHandle] = []
        self.clear()

    def clear(self, mask_BN: Tensor | None = None) -> None:
        """Forget the last batch; `mask_BN` says which tokens of the next one count."""
        self._measures: dict[str, dict[int, Tensor]] = {}
        self._features: dict[str, dict[int, Tensor]] = {}
        self._mask = mask_BN
        self._embeddings: Tensor | None = None
        self._input: Tensor | None = None
        self._last: tuple[Tensor, Layer] | None = None

    def __enter__(self) -> Recorder:
        try:
            anatomy = self.anatomy
            self._handles.append(anatomy.embedding.register_forward_hook(self._on_embedding))
            for block in anatomy.blocks:
                before, after = self._on_input(block.index), self._on_block(block.index)
                self._handles.append(block.module.register_forward_pre_hook(before, with_kwargs=True))
                self._handles.append(block.module.register_forward_hook(after))
            if anatomy.norm is not None:
                self._handles.append(anatomy.norm.register_forward_hook(self._on_norm))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def _on_embedding(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._embeddings = self.anatomy.embedding_tokens(output)

    def _on_input(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._input = stream(args[0] if args else next(iter(kwargs.values())))
            if index == 0:
                self._measure(0, self._input, None)

        return hook

    def _on_block(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._measure(index + 1, stream(output), self._input)
            self._input = None

        return hook

    def _on_norm(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tokens = stream(output)
        if self._last is not None and tokens.shape[:-1] == self._last[0].shape[:-1]:
            self._measure(self.rows - 1, tokens, None)

    @torch.inference_mode()
    def _measure(self, row: int, tokens: Tensor, given: Tensor | None) -> None:
        with torch.autocast(tokens.device.type, enabled=False):
            layer = self._layer(row, tokens)
            before = None
            if given is not None:
                known = self._last is not None and self._last[0] is given
                before = self._last[1] if known and self._last is not None else self._layer(row, given)
            measures: dict[str, Tensor] = {_SIZE: layer.norms.sum(1)}
            if layer.cls is not None:
                measures[_SIZE] = measures[_SIZE] + layer.cls.abs().sum(1)
            for probe in self.probes:
                measures |= probe.measure(layer, before)
            for name, values_B in measures.items():
                self._measures.setdefault(name, {})[row] = values_B.double()
            if self.features:
                self._features.setdefault("pooled", {})[row] = layer.mean.float()
                if layer.cls is not None:
                    self._features.setdefault("cls", {})[row] = layer.cls.float()
        self._last = (tokens, layer)

    def _layer(self, row: int, tokens: Tensor) -> Layer:
        tokens_BND = tokens.flatten(1, 2) if tokens.dim() == 4 else tokens
        if tokens_BND.dtype != torch.float64:
            tokens_BND = tokens_BND.float()
        prefix = self.anatomy.prefix_tokens
        patches_BND = tokens_BND[:, prefix:]
        cls_BD = tokens_BND[:, 0] if self.anatomy.has_cls and prefix else None
        mask = self._mask if self._mask is not None and self._mask.shape == patches_BND.shape[:2] else None
        if row:
            return Layer(patches_BND, cls_BD, mask)
        embeddings, positions = self._encoding(patches_BND)
        return Layer(patches_BND, cls_BD, mask, embeddings, positions)

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

    def batch(self, index: int, hashes: Hashes, labels: Labels | None) -> Batch:
        """What the forward pass of batch number `index` left.

        Raises
        ------
        InputError
            A block did not run, or a layer holds NaN or infinity: the message says which layer and which batch.
        """
        self._complete(index)
        held = {name: torch.stack(self._spread(rows)).cpu().numpy() for name, rows in self._measures.items()}
        sizes_RB = held.pop(_SIZE)
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
        return Batch(hashes, held, labels, features if labels is not None else {})

    def row_name(self, row: int) -> str:
        """How a person calls a row of the profile."""
        if row == 0:
            return "the input of the first block"
        if row == self.rows - 1:
            return "the output of the final norm"
        return f"the output of block {row} of {self.anatomy.depth} ({self.anatomy.blocks[row - 1].path})"

    def _complete(self, index: int) -> None:
        """Every row has its measures; without a final norm the last row repeats the last block's."""
        seen = self._measures.get(_SIZE, {})
        missing = [row for row in range(self.rows - 1) if row not in seen]
        if missing:
            raise InputError(
                f"{self.row_name(missing[0])} was not seen in the forward pass of batch {index}",
                expected="every block to run once in a forward pass",
                cure="give the paths of the blocks that run: dw.anatomy(model, paths={'blocks': …, 'embedding': …})",
            )
        if self.rows - 1 in seen:
            return
        self.remarks.add(
            "there is no norm over all tokens after the last block: the last row repeats the last block's output"
        )
        for rows in (*self._measures.values(), *self._features.values()):
            if rows.get(self.rows - 2) is not None:
                rows[self.rows - 1] = rows[self.rows - 2]
        self._measures.get("influence", {}).pop(self.rows - 1, None)

    def _spread(self, rows: Mapping[int, Tensor]) -> list[Tensor]:
        """One tensor a row, NaN where there is nothing."""
        nothing = torch.full_like(next(iter(rows.values())), float("nan"))
        return [rows.get(row, nothing) for row in range(self.rows)]
