"""Training: recipes as values, one loop on accelerate and timm's parts, exact resume."""

from deadweight.training.checkpoint import remove_checkpoints
from deadweight.training.curves import Curves
from deadweight.training.evaluate import Scores, evaluate
from deadweight.training.feed import Feed
from deadweight.training.language import LanguageRun, held_out_losses, train_language
from deadweight.training.loop import Diverged, train
from deadweight.training.recipe import Recipe
from deadweight.training.sharing import sharing_groups
from deadweight.training.threads import suitable_threads

__all__ = [
    "Curves",
    "Diverged",
    "Feed",
    "LanguageRun",
    "Recipe",
    "Scores",
    "evaluate",
    "held_out_losses",
    "remove_checkpoints",
    "sharing_groups",
    "suitable_threads",
    "train",
    "train_language",
]
