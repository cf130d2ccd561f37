"""A record as text on disk: encoded with its digest, decoded with every doubt told, old schemas brought up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from deadweight.errors import InputError
from deadweight.lab.cell import Json
from deadweight.lab.records import SCHEMA, Record
from deadweight.secrets import hidden

_WITH_DIGEST = 2  # the first schema whose records carry one


@dataclass(frozen=True)
class CorruptRecord:
    """A file that is not the record it should be, and why."""

    reason: str


def encode(record: Record) -> str:
    """The record's text, its digest among the context, secrets left out.

    What JSON cannot hold (NaN, objects) raises ValueError, and a cell that was asked for with a secret InputError: its
    key could not be told without.
    """
    body = hidden(record.as_json())
    if body["cell"] != record.as_json()["cell"]:
        raise InputError("a parameter of the cell holds a secret", expected="cells without keys, tokens or passwords")
    text = _compact(body)
    body["context"] = {**body["context"], "digest": _digest(text)}
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)


def decode(text: bytes | str, key: str) -> Record | CorruptRecord:
    """The record in `text`, which must be that of cell `key`, or what is wrong with it.

    Raises
    ------
    InputError
        Written by a newer deadweight: neither damaged nor readable.
    """
    try:
        body = json.loads(text)
        schema = body["schema"]
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            return CorruptRecord(f"schema {schema!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        return CorruptRecord(f"not a whole record ({type(problem).__name__})")
    if schema > SCHEMA:
        raise InputError(
            f"the record of cell {key} has schema {schema}",
            expected=f"at most {SCHEMA}, which this version of deadweight writes",
            cure="upgrade deadweight, or choose another folder with --out",
        )
    try:
        if schema >= _WITH_DIGEST:
            digest = body["context"].pop("digest")
            if digest != _digest(_compact(body)):
                return CorruptRecord("its content does not match its digest")
        for old in range(schema, SCHEMA):
            body = MIGRATIONS[old](body)
        record = Record.from_json(body)
        if record.key != key:
            return CorruptRecord(f"it is the record of another cell, {record.key}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        return CorruptRecord(f"not a whole record ({type(problem).__name__}: {problem})")
    return record


def _from_1(body: dict[str, Json]) -> dict[str, Json]:
    """Schema 1 had no digest; nothing else differs."""
    return body


# What schema 2 called otherwise; keys and units say "per" since.
_RENAMED = {"joules_a_token": "joules_per_token", "cache_bytes_a_token": "cache_bytes_per_token"}
_UNITS = {"J a token": "J per token"}


def _from_2(body: dict[str, Json]) -> dict[str, Json]:
    """Keys and units of what was measured, wherever they stand; the cell, and so its key, is left as it is."""

    def renamed(value: Json) -> Json:
        if isinstance(value, dict):
            return {
                _RENAMED.get(name, name): _UNITS.get(inner, inner) if name == "unit" else renamed(inner)
                for name, inner in value.items()
            }
        return [renamed(inner) for inner in value] if isinstance(value, list) else value

    return {**body, "result": renamed(body["result"]), "measured": renamed(body["measured"])}


# From each older schema to the next. Records are never rewritten: they are brought up to date as they are read.
MIGRATIONS: dict[int, Callable[[dict[str, Json]], dict[str, Json]]] = {1: _from_1, 2: _from_2}


def _compact(body: Json) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
