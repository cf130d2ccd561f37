"""Models of the Hugging Face hub, or of a local folder in its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from deadweight.errors import SourceError
from deadweight.models.language import mismatched, quiet, reported_by_us
from deadweight.models.matching import FRONT, INSIDE, require_match
from deadweight.models.vision import no_weights
from deadweight.network import hub_reach
from deadweight.source import Source

_UNWRAPPED = {rf"^({FRONT}\.)+": "", rf"({'|'.join(INSIDE)})\.": "", rf"^(?:{FRONT}\.)+": ""}


def place(source: Source) -> tuple[str, dict[str, Any]]:
    """What transformers' ``from_pretrained`` takes: (folder or repository, options).

    A name that looks like a path must be a folder with a ``config.json``; anything else is a repository.
    """
    folder = Path(source.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise _no_config(source, folder)
        return str(folder), {"local_files_only": True}
    if source.name.startswith((".", "/", "~")) or folder.is_file() or "\\" in source.name:
        raise SourceError(
            f"{source.text!r}: there is no such folder",
            expected="a folder written by save_pretrained, or a hub name such as org/model",
            cure="check the path",
        )
    name, revision, _ = source.repository
    return name, {"revision": revision} if revision else {}


def _no_config(source: Source, folder: Path) -> SourceError:
    if (folder / "adapter_config.json").is_file():
        return SourceError(
            f"{source.text!r} holds an adapter (LoRA or another of peft), not a model",
            expected="the model with the adapter merged into it",
            cure="in peft: AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW)",
        )
    return SourceError(
        f"{source.text!r}: the folder has no config.json",
        expected="a folder written by save_pretrained",
        cure="a model saved by dw.save is loaded with file:FOLDER, a GGUF file with gguf:PATH",
    )


def config_of(source: Source, *, trust_remote_code: bool = False, **settings: Any) -> Any:
    """The transformers configuration, read before any weights are; refused where the weights are quantised.

    `settings` replace what it says.
    """
    from transformers import AutoConfig

    where, options = place(source)
    with hub_reach():
        try:
            config = AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code, **options, **settings)
        except (OSError, ValueError) as problem:
            if "local_files_only" in options:
                raise SourceError(
                    f"{source.text!r}: {str(problem).splitlines()[0]}", expected="a readable config.json"
                ) from problem
            raise no_weights(source, str(problem).splitlines()[0]) from problem
    quantised: Any = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise SourceError(
            f"{source.text!r} is quantised with {getattr(method, 'value', method)}: its weights are no plain numbers",
            expected="floating-point weights (float32, bfloat16, float16), which can be measured and refitted",
            cure="give the model it was quantised from, or a GGUF file of it, which is dequantised on loading",
        )
    return config


def model_class(config: Any) -> Any:
    """The class the configuration names, or the transformers auto class for what it describes."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    for name in getattr(config, "architectures", None) or []:
        named = getattr(transformers, name, None)
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
            return named
    if (getattr(config, "architectures", None) or [""])[0].endswith(("ForCausalLM", "LMHeadModel")):
        return transformers.AutoModelForCausalLM  # of code that comes with the repository
    if config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not _encodes(config):
        return transformers.AutoModelForCausalLM  # older tools left `architectures` out
    if config.model_type in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return transformers.AutoModelForImageClassification
    return transformers.AutoModel


def _encodes(config: Any) -> bool:
    """Whether a model of this configuration reads both ways: an encoder that also has a causal class."""
    from transformers.models.auto import modeling_auto as auto

    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return bool(getattr(config, "is_encoder_decoder", False)) or (masked and not getattr(config, "is_decoder", False))


def check_causal(text: str, config: Any) -> None:
    """Refuse what predicts no next token, by its configuration alone: other heads, no head, encoders."""
    from transformers.models.auto import modeling_auto as auto

    if not hasattr(config.get_text_config(), "num_attention_heads"):
        raise SourceError(
            f"{text!r} is a {config.model_type} model: it has no attention and no transformer blocks",
            expected="a transformer",
            cure="what is examined here are blocks of attention and MLP",
        )
    known = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = list(getattr(config, "architectures", None) or [])
    if getattr(config, "auto_map", None) and not known & set(named):
        return  # the repository's own class
    causal = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    bare = bool(named) and named[0].endswith("Model") and not named[0].endswith("LMHeadModel")
    tied = causal and bool(getattr(config, "tie_word_embeddings", False))
    if (
        known & set(named)
        or (not named and causal and not _encodes(config))
        or (bare and tied and not _encodes(config))
    ):
        return
    name = named[0] if named else type(config).__name__
    raise SourceError(
        f"{text!r} is a {name}: {_why_not(name, bare, config)}",
        expected="a causal language model, such as a LlamaForCausalLM",
        cure="give the language model it was made from; vision models are given with --vision",
    )


def _why_not(name: str, bare: bool, config: Any) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder with a decoder, which continues no text by itself"
    if "Classification" in name or "Reward" in name:
        return "a model with a classification or reward head, which predicts no words"
    if "MaskedLM" in name or _encodes(config):
        return "an encoder, which fills in masked words and predicts no next one"
    return "a model without its output head" if bare else "a model that predicts no next word"


def build(config: Any, *, trust_remote_code: bool = False, causal: bool = False, **options: Any) -> nn.Module:
    """The model of a configuration, with random weights; `options` go to its class, `causal` as in :func:`load_hub`."""
    from transformers import AutoModelForCausalLM

    kind = AutoModelForCausalLM if causal else model_class(config)
    if kind.__name__.startswith("Auto"):
        # Said explicitly: left out, transformers asks at the terminal whether code of the repository may run.
        chosen: nn.Module = kind.from_config(config, trust_remote_code=trust_remote_code, **options)
        return chosen
    model: nn.Module = kind(config, **options)
    return model


def load_hub(
    source: Source,
    *,
    pretrained: bool | None = None,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    causal: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """``hf:REPO[@REV]`` or ``hf:FOLDER``: a causal LM or an image classifier, as its configuration says.

    `kwargs` replace settings of the configuration; others go to the model's class. Weights are read as safetensors
    where they exist; code shipped with a repository runs only with ``trust_remote_code=True``. Prefixes of
    torch.compile and of data parallelism are understood; any other tensor that does not match is an error that counts
    and names them, unless ``?strict=false``. `causal`: with the head of a causal LM, whatever the configuration says.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(source, trust_remote_code=trust_remote_code)
    known = [*config.to_dict(), "num_labels", "attn_implementation"]
    settings = {name: kwargs.pop(name) for name in list(kwargs) if name in known}
    if settings:
        config = config_of(source, trust_remote_code=trust_remote_code, **settings)
    if pretrained is False:
        return build(config, trust_remote_code=trust_remote_code, causal=causal, **kwargs)
    kind = AutoModelForCausalLM if causal else model_class(config)
    where, options = place(source)
    with hub_reach(), quiet(), reported_by_us():
        try:
            loaded, info = kind.from_pretrained(
                where, config=config, trust_remote_code=trust_remote_code, dtype=dtype, output_loading_info=True,
                ignore_mismatched_sizes=True, key_mapping=_UNWRAPPED, **options, **kwargs,
            )  # fmt: skip
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
    require_match(
        source.text, missing=info["missing_keys"], unexpected=info["unexpected_keys"], shapes=mismatched(info),
        total=len(loaded.state_dict()), strict=source.flag("strict", True),
    )  # fmt: skip
    model: nn.Module = loaded
    return model
