"""Files of studies, read with care: they may come from anyone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from deadweight.errors import InputError
from deadweight.lab import Cell

_LARGEST = 2**18  # bytes of a study file; the packaged ones have some hundred


@dataclass(frozen=True)
class Plan:
    """What exactly will be done: the cells in order, and the parts that were left out, with the reason."""

    cells: tuple[Cell, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def as_text(self) -> str:
        cells = [
            {**cell.identity, "exclusive": cell.exclusive, "spread": cell.spread, "seconds": cell.seconds}
            for cell in self.cells
        ]
        return json.dumps({"schema": 1, "cells": cells, "skipped": self.skipped}, indent=1)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """What :meth:`as_text` wrote; a file that is not such a plan raises :class:`InputError`."""
        try:
            found = json.loads(path.read_bytes())
            cells = [_planned(identity) for identity in found["cells"]]
            return cls(tuple(cells), tuple((str(study), str(reason)) for study, reason in found["skipped"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise InputError(
                f"{path} is not a plan: {type(problem).__name__}: {problem}",
                expected="the file that `deadweight run` wrote",
                cure="run the study again with the same --out; finished cells are kept",
            ) from problem


def _planned(identity: Mapping[str, Any]) -> Cell:
    """A cell of a plan's file, checked: its key names a folder, and its label goes to the terminal."""
    cell = Cell.from_json(identity)
    if not isinstance(cell.study, str) or not isinstance(cell.kind, str) or not isinstance(cell.params, dict):
        raise TypeError("a cell's study and kind are text and its params a mapping")
    if not all(isinstance(key, str) for key in cell.needs):
        raise TypeError("the keys a cell needs are text")
    seconds = float(identity.get("seconds", 0.0))
    if not 0 <= seconds < math.inf or not cell.key:  # a key that cannot be told, of a NaN, raises ValueError
        raise ValueError(f"a cell of {seconds} seconds")
    exclusive, spread = bool(identity.get("exclusive", False)), bool(identity.get("spread", False))
    return replace(cell, exclusive=exclusive, spread=spread, seconds=seconds)


class _PlainLoader(yaml.SafeLoader):
    """YAML without what a study has no use for: aliases, with which a few lines stand for gigabytes, and a key that is
    given twice, of which one would be ignored in silence."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken in a study", where)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is given twice", node.start_mark)
        return found


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: plain values only. Whatever is wrong with it raises :class:`InputError`."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes", expected=f"a study of at most {_LARGEST:,}")
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)  # noqa: S506  # a SafeLoader, made stricter
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as problem:
        if isinstance(problem, InputError):
            raise
        said = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise InputError(f"{path} is not readable YAML: {said}", expected="`study: mlp` and options") from problem
