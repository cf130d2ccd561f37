"""The attention study (arXiv 2507.07247): which attention mechanism costs what in time, memory, energy, quality?"""
