"""What models are built from: libraries' own constructors, our small GPT-2, the embedded defaults, transforms."""

from deadweight.models.embedded import EMBEDDED
from deadweight.models.language import LanguageModel
from deadweight.models.placement import pick_device, torch_dtype
from deadweight.models.provenance import origin, set_origin
from deadweight.models.transform import input_shape, transform

__all__ = [
    "EMBEDDED",
    "LanguageModel",
    "input_shape",
    "origin",
    "pick_device",
    "set_origin",
    "torch_dtype",
    "transform",
]
