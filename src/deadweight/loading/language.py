"""`load_lm(source)`: a causal language model with its tokenizer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from deadweight.errors import SourceError
from deadweight.loading.checkpoint_source import resolved
from deadweight.loading.checkpoints import check_checkpoint, load_checkpoint
from deadweight.loading.own import load_own_lm
from deadweight.loading.sources import MODEL_SOURCES, describe_by_paths, model_options, model_source
from deadweight.models import LanguageModel, origin, pick_device, set_origin, torch_dtype
from deadweight.models.embedded import language_source
from deadweight.models.hub import check_causal, config_of, load_hub, place
from deadweight.models.language import gguf_path, load_gguf, quiet, read_gguf
from deadweight.models.memory_check import require_room
from deadweight.network import hub_reach
from deadweight.source import Source, without


def _resolved(source: Source) -> Source:
    return language_source(source) if source.scheme == "embedded" else source


def check_language(text: str, *, trust_remote_code: bool = False) -> Source:
    """Refuse a language source that cannot work, cheaply: before any weights are read."""
    named = resolved(model_source(text))
    check_checkpoint(named)
    options = model_options(named)
    source = _resolved(named)
    if source.scheme == "gguf":
        gguf_path(source)
    elif source.scheme == "hf":
        check_causal(text, config_of(source, trust_remote_code=trust_remote_code, **options))
    elif source.scheme not in ("file", "python"):
        raise SourceError(
            f"{text!r} names no language model",
            expected="hf:FOLDER, hf:REPO, gguf:PATH, file:FOLDER, python:MODULE:FUNCTION or "
            "embedded:smollm2-135m-instruct",
        )
    return source


def load_lm(
    source: str,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """A causal language model and its tokenizer.

    Parameters
    ----------
    source:
        ``hf:REPO[@REV]``, ``hf:FOLDER`` (``?checkpoint=FILE`` for weights from elsewhere), ``gguf:PATH``,
        ``file:FOLDER``, ``embedded:smollm2-135m-instruct``, or ``python:MODULE:FUNCTION``, a function of your own that
        returns model and tokenizer.
    dtype, device:
        Of the weights; the device defaults to the accelerator, else the CPU.

    Raises
    ------
    SourceError
        The source cannot be read, or is not a language model with a tokenizer.
    MachineError
        The weights do not fit into memory.

    Examples
    --------
    >>> try:
    ...     load_lm("hf:/nowhere/at/all")
    ... except SourceError as problem:
    ...     print("no such folder" in problem.given)
    True
    """
    parsed, wanted = check_language(source, trust_remote_code=trust_remote_code), torch_dtype(dtype)
    if parsed.scheme == "python":
        own = load_own_lm(parsed)
        if origin(own.model) is None:
            set_origin(own.model, source)
        describe_by_paths(own.model, parsed, "causal_lm")
        return replace(own, model=own.model.to(device=pick_device(device), dtype=wanted).eval())
    options = model_options(parsed)
    # hf: is read in the dtype asked for, the others in float32 and then cast
    require_room(parsed, wanted if parsed.scheme == "hf" else None, **options)
    tokenizer = _tokenizer(parsed, trust_remote_code)
    if parsed.scheme == "gguf":
        model = load_gguf(parsed)
    elif parsed.scheme == "hf":
        _check_vocabulary(source, tokenizer, config_of(parsed, trust_remote_code=trust_remote_code, **options))
        read = partial(load_hub, parsed, trust_remote_code=trust_remote_code, causal=True)
        with quiet(), hub_reach():
            if "checkpoint" in parsed.options:
                model, _ = load_checkpoint(parsed, partial(read, pretrained=False), options)
            else:
                model = read(dtype=wanted or torch.float32, pretrained=parsed.flag("pretrained", True), **options)
    else:
        with quiet():
            model = MODEL_SOURCES.get("file")(parsed)
    if origin(model) is None:
        set_origin(
            model,
            without(parsed, "checkpoint", "ema", "strict", "pretrained") if "checkpoint" in parsed.options else source,
        )
    describe_by_paths(model, parsed, "causal_lm")
    config: Any = model.config
    model = model.to(device=pick_device(device), dtype=wanted).eval()
    return LanguageModel(model, tokenizer, parsed.name, _longest(config) or 2048)


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> tuple[Any, int | None]:
    """The tokenizer alone, without any weights, and the longest input the configuration declares, where there is one.

    Raises :class:`SourceError` as :func:`load_lm` does.
    """
    from transformers import AutoConfig

    parsed = check_language(source, trust_remote_code=trust_remote_code)
    if parsed.scheme == "python":
        own = load_own_lm(parsed)
        return own.tokenizer, own.max_length
    tokenizer = _tokenizer(parsed, trust_remote_code)
    if parsed.scheme == "gguf":
        return tokenizer, _longest(read_gguf(gguf_path(parsed), AutoConfig, parsed))
    if parsed.scheme != "hf":
        return tokenizer, None
    return tokenizer, _longest(config_of(parsed, trust_remote_code=trust_remote_code, **model_options(parsed)))


def _check_vocabulary(text: str, tokenizer: Any, config: Any) -> None:
    """Refuse a tokenizer of another model. Tokens added to its vocabulary may lie beyond the embedding, unused."""
    tokens, rows = int(tokenizer.vocab_size), getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and tokens > rows:
        raise SourceError(
            f"{text!r}: the tokenizer knows {tokens} tokens, and the model's embedding has {rows} rows",
            expected="the tokenizer the model was trained with",
            cure="save that tokenizer into the model's folder",
        )


def _longest(config: Any) -> int | None:
    longest = getattr(config, "max_position_embeddings", None)
    return None if longest is None else int(longest)


def _tokenizer(parsed: Source, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    if parsed.scheme == "gguf":
        return read_gguf(gguf_path(parsed), AutoTokenizer, parsed)
    where, options = place(parsed) if parsed.scheme == "hf" else (parsed.name, {"local_files_only": True})
    with quiet(), hub_reach():
        try:
            return AutoTokenizer.from_pretrained(where, trust_remote_code=trust_remote_code, **options)
        except (OSError, ValueError, TypeError, KeyError) as problem:
            raise SourceError(
                f"{parsed.text!r}: no tokenizer can be read ({str(problem).splitlines()[0]})",
                expected="the tokenizer's files beside the weights",
                cure="call tokenizer.save_pretrained on the same folder",
            ) from problem
