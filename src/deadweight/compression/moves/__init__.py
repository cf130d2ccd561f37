"""The moves of ``compress``. A new one is a file here, and its name in this list."""

from deadweight.compression.moves.drop import Drop
from deadweight.compression.moves.move import Choice, Move
from deadweight.compression.moves.narrow import Narrow
from deadweight.compression.moves.share import Share
from deadweight.compression.visit import Visit

# The first alone is always tried as well. Plans are made from the last to the first.
MOVES: list[Move] = [Narrow(), Share(), Drop()]

__all__ = ["MOVES", "Choice", "Drop", "Move", "Narrow", "Share", "Visit"]
