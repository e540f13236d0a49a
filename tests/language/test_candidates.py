"""Trees of candidates, by property: whatever the candidates, every path spells its own."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mint.language.candidates import ROOT, CandidateTree, grow_trees

CANDIDATES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), max_size=30)
"""Few tokens, so that beginnings are shared, candidates repeat and some are the beginning of others."""


def spelled(tree: CandidateTree, candidate: int) -> list[int]:
    """The tokens of a candidate's path; on the way, each edge must leave the node that the edge before led to."""
    edges = list(tree.edges)
    tokens, expected_parent = [], ROOT
    for depth, edge in enumerate(tree.paths[candidate]):
        parent, token = edges[edge]
        assert parent == expected_parent
        tokens.append(token)
        if depth < len(tree.paths[candidate]) - 1:
            (node,) = (
                index
                for index in range(len(tree.tokens))
                if tree.node_parents[index] == parent and tree.tokens[index] == token
            )
            assert tree.depths[node] == depth
            expected_parent = node + 1
    return tokens


@given(CANDIDATES, st.integers(1, 20))
def test_each_candidate_is_in_one_tree_and_its_path_spells_it(candidates: list[list[int]], max_nodes: int) -> None:
    trees = list(grow_trees(candidates, max_nodes))
    assert sorted(candidate for tree in trees for candidate in tree.paths) == list(range(len(candidates)))
    for tree in trees:
        for candidate in tree.paths:
            assert spelled(tree, candidate) == candidates[candidate]


@given(CANDIDATES, st.integers(1, 20))
def test_trees_hold_each_beginning_once_and_stay_small(candidates: list[list[int]], max_nodes: int) -> None:
    for tree in grow_trees(candidates, max_nodes):
        members = [candidates[candidate] for candidate in tree.paths]
        beginnings = {tuple(tokens[:length]) for tokens in members for length in range(1, len(tokens))}
        assert len(tree.tokens) == len(tree.depths) == len(tree.node_parents) == len(beginnings)
        assert len(tree.edges) == len(
            {tuple(tokens[:length]) for tokens in members for length in range(1, len(tokens) + 1)}
        )
        assert len(tree.tokens) <= max(max_nodes, max(map(len, members)))
        assert all(parent <= index for index, parent in enumerate(tree.node_parents))


@given(CANDIDATES)
def test_ancestors_equal_a_walk_to_the_root(candidates: list[list[int]]) -> None:
    for tree in grow_trees(candidates):
        expected = torch.zeros(len(tree.tokens), len(tree.tokens), dtype=torch.bool)
        for node in range(len(tree.tokens)):
            place = node + 1
            while place != ROOT:
                expected[node, place - 1] = True
                place = tree.node_parents[place - 1]
        assert torch.equal(tree.ancestors(), expected)
        assert expected.sum(dim=1).tolist() == [depth + 1 for depth in tree.depths]


def test_one_tree_unless_it_grows_too_large() -> None:
    candidates = [[token, 0] for token in range(10)]
    assert len(list(grow_trees(candidates))) == 1
    assert [len(tree.paths) for tree in grow_trees(candidates, max_nodes=4)] == [3, 3, 3, 1]
    assert list(grow_trees([])) == []
