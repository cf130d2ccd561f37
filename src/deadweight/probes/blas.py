"""numpy and scipy beside torch: two pools of threads spin while they wait, and take the cores from one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  # its BLAS must be there when the controller looks
from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """numpy's and scipy's products run on the calling thread inside; torch keeps its threads. Also a decorator."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
