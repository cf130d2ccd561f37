"""Training: recipes as values, one loop on accelerate and timm's parts, exact resume."""

from deadweight.training.checkpoint import remove_checkpoints
from deadweight.training.curves import Curves
from deadweight.training.evaluate import Scores, evaluate
from deadweight.training.feed import Feed
from deadweight.training.loop import Diverged, train
from deadweight.training.recipe import Recipe

__all__ = ["Curves", "Diverged", "Feed", "Recipe", "Scores", "evaluate", "remove_checkpoints", "train"]
