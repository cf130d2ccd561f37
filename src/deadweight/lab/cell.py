"""A cell: one point of a study's grid, a plain value whose key says everything its result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deadweight.secrets import printable

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]


def canonical(value: Json) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    study, kind:   which study it belongs to and which of its kinds of work it is.
    params:        the coordinates in the grid, JSON values only.
    needs:         keys of cells that must have their records first.
    sources:       name -> fingerprint of every model and data source the result depends on.
    version:       the study's code version: a change of it makes a new key.
    exclusive:     times something, so it runs alone on the machine (does not change the key).
    spread:        trains through accelerate, so that every process a launcher started takes part (not in the key).
    seconds:       rough cost, for ``--dry-run`` and the progress bar (does not change the key).

    >>> one, again = (Cell("mlp", "train", {"seed": 0}) for _ in range(2))
    >>> one.key == again.key, one.key == Cell("mlp", "train", {"seed": 1}).key
    (True, False)
    """

    study: str
    kind: str
    params: Mapping[str, Json] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    exclusive: bool = False
    spread: bool = False
    seconds: float = 0.0

    @property
    def identity(self) -> dict[str, Json]:
        return {
            "study": self.study,
            "kind": self.kind,
            "params": dict(self.params),
            "needs": list(self.needs),
            "sources": dict(self.sources),
            "version": self.version,
        }

    @property
    def key(self) -> str:
        """16 hexadecimal digits of a hash of the identity."""
        text = canonical(self.identity).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=8).hexdigest()

    @property
    def label(self) -> str:
        """What a progress bar shows: study, kind, and the first two coordinates, which a study names first."""
        values = [str(value) for value in self.params.values() if isinstance(value, (str, int, float))]
        return printable(" ".join([self.study, self.kind, *values[:2]]))

    @classmethod
    def from_json(cls, identity: Mapping[str, Json]) -> Cell:
        return cls(
            study=identity["study"],
            kind=identity["kind"],
            params=identity["params"],
            needs=tuple(identity["needs"]),
            sources=identity["sources"],
            version=identity["version"],
        )
