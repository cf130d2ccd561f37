"""The mlp study (arXiv 2512.01059): how much of the MLPs can be shared or narrowed without losing accuracy?"""
