"""The energies that arXiv 2507.07247 publishes, and an order beside its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Megajoules of training GPT-2, 512 tokens, batch 16. `eager` is its baseline; what its code calls by the other names is
# not always what the names mean (docs/explanation/published-comparisons.md).
PUBLISHED_MJ = {
    "sliding_window": 1.43, "eager": 1.39, "gqa": 1.33, "sdpa": 1.27, "linear": 1.21, "mla": 1.17, "lsh": 1.17,
    "flash": 1.07,
}  # fmt: skip
EIGHT = tuple(PUBLISHED_MJ)


def ranking(least_first: Mapping[str, float]) -> list[str]:
    """Names, the least first; equal ones in the order of the alphabet."""
    return sorted(least_first, key=lambda name: (least_first[name], name))


def agreement(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float | None:
    """Kendall's τ-b between two orders of the same names; None for fewer than three of them."""
    from scipy.stats import kendalltau

    both: Sequence[str] = [name for name in theirs if name in ours]
    if len(both) < 3:
        return None
    found = kendalltau([ours[name] for name in both], [theirs[name] for name in both], variant="b")
    return float(found.statistic)
