"""Source strings to models; our small GPT-2; the embedded defaults."""

from deadweight.models.embedded import EMBEDDED
from deadweight.models.language import LanguageModel, check_language, load_lm
from deadweight.models.load import MODEL_SOURCES, load, model_source, pick_device, torch_dtype
from deadweight.models.provenance import origin, set_origin
from deadweight.models.transform import input_shape, transform

__all__ = [
    "EMBEDDED",
    "MODEL_SOURCES",
    "LanguageModel",
    "check_language",
    "input_shape",
    "load",
    "load_lm",
    "model_source",
    "origin",
    "pick_device",
    "set_origin",
    "torch_dtype",
    "transform",
]
