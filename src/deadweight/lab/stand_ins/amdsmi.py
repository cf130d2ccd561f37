"""Found before the amdsmi of a machine without AMD's library, whose import ends in a KeyError Ray does not expect."""

raise ImportError("the AMD library is not on this machine")
