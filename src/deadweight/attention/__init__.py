"""Attention mechanisms: one file each, one interface, one naive float64 oracle each (`oracles.py`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "MECHANISMS": "build",
    "Cache": "base",
    "Macs": "base",
    "Mechanism": "base",
    "mechanism": "build",
    "pool_heads": "gqa",
}

__all__ = ["MECHANISMS", "Cache", "Macs", "Mechanism", "mechanism", "pool_heads"]

if TYPE_CHECKING:
    from deadweight.attention.base import Cache, Macs, Mechanism
    from deadweight.attention.build import MECHANISMS, mechanism
    from deadweight.attention.gqa import pool_heads


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"deadweight.attention.{_HOME[name]}"), name)
