"""The interleaved benchmark of attention mechanisms: what is timed, the worker processes, the record."""
