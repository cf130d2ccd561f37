"""A smaller model out of a trained one: what can go, in which mix, and what that costs."""

from deadweight.compression.compress import compress
from deadweight.compression.report import Candidate, Compression, Measured, Size

__all__ = ["Candidate", "Compression", "Measured", "Size", "compress"]
