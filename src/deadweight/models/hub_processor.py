"""The image processor of a model of transformers: the one saved beside its weights, or the usual one of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from deadweight.errors import SourceError
from deadweight.models.hub import place
from deadweight.network import hub_reach
from deadweight.source import Source


def saved_processor(model: nn.Module, source: Source | None) -> tuple[Any | None, str]:
    """The processor saved with the model, else None and the reason there is none.

    A model that was loaded without us says in its configuration where it came from. Code of a repository is not run.
    """
    from transformers import AutoImageProcessor

    config: Any = model.config
    try:
        if source is not None and source.scheme == "hf":
            where, options = place(source)
        else:
            where = str(getattr(config, "_name_or_path", "") or "")
            options = {"local_files_only": True}
    except SourceError:
        return None, "the folder it was loaded from is gone"
    if not where:
        return None, "it was not loaded from a folder or the hub"
    with hub_reach():
        try:
            return AutoImageProcessor.from_pretrained(where, trust_remote_code=False, **options), ""
        except (OSError, ValueError, ImportError, KeyError, TypeError) as problem:
            if Path(where, "preprocessor_config.json").is_file():
                raise SourceError(
                    f"preprocessor_config.json beside hf:{where}: {str(problem).splitlines()[0]}",
                    expected="the settings of an image processor of transformers",
                ) from problem
            return None, "there is no preprocessor_config.json beside its weights"


def usual_processor(model: nn.Module) -> Any | None:
    """What transformers prepares pictures with for models of this kind, with its default settings."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    try:
        kinds: Any = IMAGE_PROCESSOR_MAPPING[type(model.config)]
        return kinds["torchvision"]()
    except (KeyError, TypeError):
        return None
