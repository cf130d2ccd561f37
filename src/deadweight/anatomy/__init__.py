"""Where the parts of a model are. The model itself is never rewritten: the user's own module is what runs.

``dw.anatomy`` is both this package and the function :func:`deadweight.anatomy.find.anatomy`: importing any part of
the package binds its name in ``deadweight``, so the package itself can be called.
"""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from deadweight.anatomy.find import ADAPTERS, anatomy
from deadweight.anatomy.parts import Anatomy, Block, MlpPaths, is_transposed, linear_shape, stream

__all__ = ["ADAPTERS", "Anatomy", "Block", "MlpPaths", "anatomy", "is_transposed", "linear_shape", "stream"]


class _Callable(ModuleType):
    def __call__(self, model: nn.Module, *, paths: Mapping[str, Any] | None = None) -> Anatomy:
        return anatomy(model, paths=paths)


sys.modules[__name__].__class__ = _Callable
