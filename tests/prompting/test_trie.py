import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.prompting.trie import build_trie

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES)
def test_nodes_are_the_distinct_prefixes(sequences):
    trie, paths = build_trie(sequences, [0] * len(sequences))
    prefixes = {tuple(one[: at + 1]) for one in sequences for at in range(len(one))}
    assert len(trie) == len(prefixes)
    for sequence, path in zip(sequences, paths, strict=True):
        assert trie.token[path].tolist() == sequence
        assert trie.depth[path].tolist() == list(range(len(sequence)))


@settings(max_examples=60, deadline=None)
@given(SEQUENCES)
def test_a_node_sees_itself_and_its_ancestors_only(sequences):
    trie, paths = build_trie(sequences, [0] * len(sequences))
    everyone = np.arange(len(trie))
    visible = trie.visible(everyone, everyone)
    ancestors = {int(node): set(map(int, path[: at + 1])) for path in paths for at, node in enumerate(path)}
    assert {node: set(np.flatnonzero(row)) for node, row in enumerate(visible)} == ancestors


def test_a_window_hides_what_lies_further_back():
    trie, _ = build_trie([[5, 6, 7, 8]], [0])
    nodes = np.arange(4)
    assert trie.visible(nodes, nodes, window=2).sum(axis=1).tolist() == [1, 2, 2, 2]
