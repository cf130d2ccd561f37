"""Changes to a model, each a function ``(model, …) -> model`` that is recorded on the model it returns."""

from deadweight.surgery.attention import FreshWeights, swap_attention
from deadweight.surgery.blocks import drop_blocks
from deadweight.surgery.early_exit import early_exit
from deadweight.surgery.log import SURGERIES, record, replay, surgeries
from deadweight.surgery.mlps import group_mlps, shallow_mlps
from deadweight.surgery.positions import scale_positions

__all__ = [
    "SURGERIES",
    "FreshWeights",
    "drop_blocks",
    "early_exit",
    "group_mlps",
    "record",
    "replay",
    "scale_positions",
    "shallow_mlps",
    "surgeries",
    "swap_attention",
]
