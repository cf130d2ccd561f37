"""`python:MODULE:FUNCTION` as a model: what the function returns, checked to be one."""

from __future__ import annotations

from typing import Any

from torch import nn

from deadweight.errors import SourceError
from deadweight.loading.checkpoints import filled
from deadweight.models import LanguageModel
from deadweight.models.checkpoint_files import read_checkpoint
from deadweight.own_code import call
from deadweight.source import Source
from deadweight.source_options import MODEL_OPTIONS

_LONGEST = 2048  # tokens, where the model does not say


def load_own(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``python:MODULE:FUNCTION``: what a function of your own returns; its options are the function's parameters.

    Raises :class:`SourceError` where it returns no module; ``?checkpoint=FILE`` fills it with the weights of a file.
    """
    built = call(source, MODEL_OPTIONS["python"], **kwargs)
    model: Any = built.model if isinstance(built, LanguageModel) else built[0] if isinstance(built, tuple) else built
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"{source.text!r} returned a {type(model).__name__}",
            expected="a torch.nn.Module; for a language model (model, tokenizer)",
            cure="return the model from the function",
        )
    if "checkpoint" in source.options:
        found = read_checkpoint(source.options["checkpoint"], source.text, averaged=source.flag("ema", False))
        return filled(source, model, found)
    return model


def load_own_lm(source: Source) -> LanguageModel:
    """The same for a language model: the function returns a LanguageModel, or a pair of model and tokenizer."""
    built = call(source, MODEL_OPTIONS["python"])
    if isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], nn.Module):
        longest = getattr(getattr(built[0], "config", None), "max_position_embeddings", None) or _LONGEST
        return LanguageModel(built[0], built[1], source.name, int(longest))
    if isinstance(built, LanguageModel):
        return built
    raise SourceError(
        f"{source.text!r} returned a {type(built).__name__}",
        expected="a pair (model, tokenizer), or a dw.LanguageModel",
        cure="return both from the function: prompts are text",
    )


__all__ = ["load_own", "load_own_lm"]
