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
from deadweight.models.gguf_parts import parts_of, whole
from deadweight.models.matching import require_match
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


@contextlib.contextmanager
def reported_by_us() -> Iterator[None]:
    """Hold back transformers' report of keys that do not match: :func:`require_match` says it, as an error."""
    from transformers.utils import logging

    was = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(was)


def mismatched(info: Any) -> list[str]:
    """Names of tensors whose shapes differ, of what transformers says about loading."""
    return [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]


def gguf_path(source: Source) -> Path:
    """The file a ``gguf:`` source names, or the first part of its model; its first four bytes say what it is."""
    path = Path(source.name).expanduser()
    if not path.is_file():
        raise SourceError(f"{source.text!r}: there is no such file", expected="a .gguf file", cure="check the path")
    path = parts_of(path, source.text)[0]
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
        raise _unreadable(source, problem) from problem


def _unreadable(source: Source, problem: Exception) -> SourceError:
    return SourceError(
        f"{source.text!r}: the GGUF file cannot be read ({type(problem).__name__}: {problem})"[:400],
        expected="a whole GGUF file of an architecture transformers knows",
        cure="it may be cut short or damaged: download it again",
    )


def load_gguf(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``gguf:PATH``: the model of a GGUF file, dequantised to float32; of a model in parts, all of them.

    A model of whose tensors some are in no part is refused; the error counts and names them.
    """
    from transformers import AutoModelForCausalLM

    parts = parts_of(gguf_path(source), source.text)
    with contextlib.ExitStack() as stack:
        stack.enter_context(reported_by_us())
        try:
            path = stack.enter_context(whole(parts, source.text))
        except (ValueError, KeyError, IndexError, OSError) as problem:
            raise problem if isinstance(problem, SourceError) else _unreadable(source, problem) from problem
        model, info = read_gguf(
            path, AutoModelForCausalLM, source, dtype=torch.float32, output_loading_info=True, **kwargs
        )
    total = len(model.state_dict())
    require_match(source.text, missing=info["missing_keys"], shapes=mismatched(info), total=total)
    loaded: nn.Module = model
    return loaded
