"""Models pruned by masks: `torch.nn.utils.prune` computes such a weight anew in every call."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import prune

Module = TypeVar("Module", bound=nn.Module)


def masked(module: nn.Module) -> list[str]:
    """The names of a module's tensors that lie under a pruning mask.

    >>> masked(prune.l1_unstructured(nn.Linear(2, 2), "weight", 1))
    ['weight']
    """
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)]


def copied(model: Module) -> Module:
    """A deep copy; what a mask leaves of a weight is no parameter and may have a history, which cannot be copied."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name in masked(module):
            product = getattr(module, name)
            if isinstance(product, Tensor):
                memo[id(product)] = product.detach().clone()
    return copy.deepcopy(model, memo)


def make_permanent(model: nn.Module) -> None:
    """Let masked weights be parameters with zeros, in place, and say so."""
    count = 0
    for module in model.modules():
        for name in masked(module):
            prune.remove(module, name)  # type: ignore[no-untyped-call]
            count += 1
    if count:
        warnings.warn(f"the pruning masks of {count} weights were made permanent: what they hid is 0 now", stacklevel=4)
