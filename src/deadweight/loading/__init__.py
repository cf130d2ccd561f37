"""Source strings to models, and models to folders: what needs surgeries to build again what was saved."""

from deadweight.loading.language import check_language, load_lm, load_tokenizer
from deadweight.loading.load import load
from deadweight.loading.saved import check_target, load_saved, save
from deadweight.loading.sources import MODEL_SOURCES, model_source

__all__ = [
    "MODEL_SOURCES",
    "check_language",
    "check_target",
    "load",
    "load_lm",
    "load_saved",
    "load_tokenizer",
    "model_source",
    "save",
]
