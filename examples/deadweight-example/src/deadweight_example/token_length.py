"""How long the tokens of an image are, layer by layer."""

from collections.abc import Mapping

from torch import Tensor

from deadweight.probes import ImageProbe
from deadweight.probes.layer import Layer, masked_mean


def token_length(layer: Layer, before: Layer | None = None) -> Mapping[str, Tensor]:
    """(B,) mean Euclidean length of an image's patch tokens; deadweight takes the mean over images and its interval."""
    return {"token_length": masked_mean(layer.norms.double(), layer.mask)}


TOKEN_LENGTH = ImageProbe("token_length", "mean length of the patch tokens of an image", token_length)
