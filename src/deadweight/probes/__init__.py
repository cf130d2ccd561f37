"""Statistics of representations, streamed: states that merge, and the depth profile made of them."""

from deadweight.probes.depth_profile import DepthProfile
from deadweight.probes.kinds import ClassProbe, Facts, HeadProbe, ImageProbe, MomentProbe, ReadoutProbe
from deadweight.probes.probe import PROBES
from deadweight.probes.profile import profile

__all__ = [
    "PROBES",
    "ClassProbe",
    "DepthProfile",
    "Facts",
    "HeadProbe",
    "ImageProbe",
    "MomentProbe",
    "ReadoutProbe",
    "profile",
]
