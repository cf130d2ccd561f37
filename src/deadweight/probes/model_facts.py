"""A model's facts and fingerprint, and the state it is in while it is profiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from deadweight.anatomy import Anatomy
from deadweight.probes.heads import head_weights
from deadweight.probes.kinds import Facts

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def facts_of(anatomy: Anatomy) -> Facts:
    """What of the model decides which probes make sense."""
    return Facts(
        fingerprint=fingerprint(anatomy.model),
        family=anatomy.family,
        kind=anatomy.kind,
        depth=anatomy.depth,
        has_cls=anatomy.has_cls,
        position_kind=anatomy.position_kind,
        reads=anatomy.reads,
        outputs=len(head_weights(anatomy)),
    )


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that differ between models: names, shapes, types and values of all weights and buffers.

    Values enter as the exact sum of their bit patterns and 256 evenly spaced ones: quick, the same on any device.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel() and tensor.element_size() in _WORDS:
            words = tensor.detach().contiguous().reshape(-1).view(_WORDS[tensor.element_size()])
            digest.update(str(int(words.sum(dtype=torch.int64))).encode())
            digest.update(words[:: max(1, len(words) // 256)].cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def examined(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """The model in eval mode on `device` (by default where it is), put back as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    first = next(model.parameters(), None)
    home = first.device if first is not None else torch.device("cpu")
    place = home if device is None else torch.device(device)
    try:
        model.eval()
        if place != home:
            model.to(place)
        yield place
    finally:
        if place != home:
            model.to(home)
        for module, training in modes.items():
            module.training = training
