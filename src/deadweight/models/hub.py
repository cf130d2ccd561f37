"""Models of the Hugging Face hub, or of a local folder in its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from deadweight.errors import SourceError
from deadweight.models.vision import no_weights
from deadweight.network import hub_reach
from deadweight.source import Source


def place(source: Source) -> tuple[str, dict[str, Any]]:
    """What transformers' ``from_pretrained`` takes: (folder or repository, options).

    A name that looks like a path must be a folder with a ``config.json``; anything else is a repository.
    """
    folder = Path(source.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise SourceError(
                f"{source.text!r}: the folder has no config.json",
                expected="a folder written by save_pretrained",
                cure="a model saved by dw.save is loaded with file:FOLDER, a GGUF file with gguf:PATH",
            )
        return str(folder), {"local_files_only": True}
    if source.name.startswith((".", "/", "~")) or folder.is_file() or "\\" in source.name:
        raise SourceError(
            f"{source.text!r}: there is no such folder",
            expected="a folder written by save_pretrained, or a hub name such as org/model",
            cure="check the path",
        )
    name, revision, _ = source.repository
    return name, {"revision": revision} if revision else {}


def config_of(source: Source, *, trust_remote_code: bool = False) -> Any:
    """The transformers configuration, read before any weights are."""
    from transformers import AutoConfig

    where, options = place(source)
    with hub_reach():
        try:
            return AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code, **options)
        except (OSError, ValueError) as problem:
            if "local_files_only" in options:
                raise SourceError(
                    f"{source.text!r}: {str(problem).splitlines()[0]}", expected="a readable config.json"
                ) from problem
            raise no_weights(source, str(problem).splitlines()[0]) from problem


def auto_class(config: Any) -> Any:
    """Which of transformers' auto classes builds what the configuration names."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification

    architectures = " ".join(getattr(config, "architectures", None) or [])
    if "ForCausalLM" in architectures or "LMHead" in architectures:
        return AutoModelForCausalLM
    return AutoModelForImageClassification if "ForImageClassification" in architectures else AutoModel


def load_hub(
    source: Source,
    *,
    pretrained: bool | None = None,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> nn.Module:
    """``hf:REPO[@REV]`` or ``hf:FOLDER``: a causal LM or an image classifier, as its configuration says.

    Weights are read as safetensors where they exist; code shipped with a repository runs only with
    ``trust_remote_code=True``.
    """
    config = config_of(source, trust_remote_code=trust_remote_code)
    auto = auto_class(config)
    if pretrained is False:
        built: nn.Module = auto.from_config(config, trust_remote_code=trust_remote_code)
        return built
    where, options = place(source)
    with hub_reach():
        try:
            loaded: nn.Module = auto.from_pretrained(
                where, trust_remote_code=trust_remote_code, dtype=dtype, **options, **kwargs
            )
        except (OSError, ValueError, RuntimeError) as problem:
            raise no_weights(source, str(problem).splitlines()[0]) from problem
        except Exception as problem:
            if type(problem).__module__.startswith(("safetensors", "pickle", "_pickle", "builtins")):
                raise SourceError(
                    f"{source.text!r}: the weights cannot be read ({problem})",
                    expected="whole safetensors files",
                    cure="copy the files again: they may be cut short",
                ) from problem
            raise
    return loaded
