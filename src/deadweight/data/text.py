"""Plain text as bytes, split into training and held-out parts by file."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deadweight.data.corpora import documents
from deadweight.data.images import digest
from deadweight.data.limit import check_limit
from deadweight.errors import SourceError
from deadweight.source import check_options, parse_source
from deadweight.source_options import TEXT_OPTIONS

EMBEDDED = {"stdlib": "the source of Python's own standard library (top-level modules), as bytes"}
_HOLD_OUT_EVERY = 10


@dataclass(frozen=True)
class TextData:
    """A text: `train` and `validation` are vectors of token numbers.

    As loaded they are bytes, uint8 with the vocabulary 256.
    """

    name: str
    train: Tensor = field(repr=False)
    validation: Tensor = field(repr=False)
    fingerprint: str
    vocabulary: int = 256


def load_text(source: str, *, limit: int | None = None) -> TextData:
    """``embedded:stdlib``, ``text:PATH`` of a file or of a folder of ``.txt``, ``.md`` and ``.py`` files, or
    ``hf:DATASET[:CONFIG][@REV][#SPLIT]``, of which the first `limit` rows are read.

    Every tenth file or row is held out; a single file is cut after nine tenths.
    Raises :class:`SourceError` for what is missing or too short to learn from, :class:`InputError` for a limit below 1.

    >>> text = load_text("embedded:stdlib")
    >>> text.train.dtype, text.vocabulary
    (torch.uint8, 256)
    """
    check_limit(limit)
    parsed = parse_source(source, example="text:book.txt")
    if parsed.scheme in TEXT_OPTIONS:
        check_options(parsed, TEXT_OPTIONS[parsed.scheme])
    files: list[Path] = []
    if parsed.scheme == "hf":
        return _split(source, documents(parsed, limit))
    if parsed.scheme == "embedded" and parsed.name in EMBEDDED:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    elif parsed.scheme == "text":
        path = Path(parsed.name).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in {".txt", ".md", ".py"})
        else:
            files = [path] if path.is_file() else []
    else:
        raise SourceError(
            f"unknown text source {source!r}",
            expected="text:PATH, hf:DATASET or " + ", ".join(f"embedded:{name}" for name in EMBEDDED),
            cure="give a file or folder of text",
        )
    return _split(source, [file.read_bytes() for file in files])


def _split(source: str, texts: list[bytes]) -> TextData:
    if len(texts) == 1:
        cut = len(texts[0]) * 9 // 10
        train, held = [texts[0][:cut]], [texts[0][cut:]]
    else:
        train = [text for number, text in enumerate(texts) if number % _HOLD_OUT_EVERY]
        held = texts[::_HOLD_OUT_EVERY]
    if sum(map(len, train)) < 10_000 or sum(map(len, held)) < 1_000:
        raise SourceError(
            f"{source!r} holds {sum(map(len, texts)):,} bytes in {len(texts)} files or rows",
            expected="at least 10,000 bytes to train on and 1,000 held out",
            cure="check the path, or give more text",
        )
    return TextData(source, _bytes(train), _bytes(held), digest(texts))


def _bytes(texts: list[bytes]) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"\n".join(texts), dtype=np.uint8).copy())
