"""What a causal language model is to us, and GGUF files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deadweight.errors import SourceError
from deadweight.source import Source


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM in eval mode, its tokenizer, its name, and the longest input it takes, in tokens.

    >>> lm = LanguageModel(torch.nn.Linear(1, 1), None, "a toy", 128)
    >>> lm.name, lm.max_length
    ('a toy', 128)
    """

    model: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str
    max_length: int


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' own progress bars: ours are the ones a person watches."""
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was:
            logging.enable_progress_bar()


def gguf_path(source: Source) -> Path:
    """The file a ``gguf:`` source names, checked to be one: its first four bytes say so."""
    path = Path(source.name).expanduser()
    if not path.is_file():
        raise SourceError(f"{source.text!r}: there is no such file", expected="a .gguf file", cure="check the path")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise SourceError(
            f"{source.text!r} is not a GGUF file: it begins with {magic!r}",
            expected="a file that begins with b'GGUF'",
            cure="download it again, or give the right file",
        )
    return path


def read_gguf(path: Path, auto: Any, source: Source, **options: Any) -> Any:
    try:
        with quiet():
            return auto.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True, **options)
    except Exception as problem:  # the gguf reader raises whatever numpy or struct does on a damaged file
        raise SourceError(
            f"{source.text!r}: the GGUF file cannot be read ({type(problem).__name__}: {problem})"[:400],
            expected="a whole GGUF file of an architecture transformers knows",
            cure="it may be cut short or damaged: download it again",
        ) from problem


def load_gguf(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``gguf:PATH``: the model of a GGUF file, dequantised to float32."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = read_gguf(gguf_path(source), AutoModelForCausalLM, source, dtype=torch.float32, **kwargs)
    return model
