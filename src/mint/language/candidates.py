r"""Candidate answers packed into trees, so that common beginnings are computed once.

Vocabulary ranking (paper, section 4.1) uses it. It is pure Python and small tensors: it knows tokens, no model.

    candidates "a b <end>", "a c <end>", "d <end>"

    prefix (ROOT) --a--> node 0 --b--> node 1 --<end>
                              \--c--> node 2 --<end>
                  --d--> node 3 --<end>

Each arrow is an edge: a token whose probability is read after its parent. Nodes are fed to the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = 0
"""Index, among parents, of the last position of the prefix; node i is parent i + 1."""


@dataclass
class CandidateTree:
    """A prefix tree. A node is a token that is fed to the model; an edge is a token whose probability is read.

    The last token of each candidate (the end of sequence) is an edge without a node: nothing follows it.
    """

    tokens: list[int] = field(default_factory=list)
    """Token of each node; a parent stands before its children."""
    depths: list[int] = field(default_factory=list)
    """Depth of each node; 0 for those right after the prefix."""
    node_parents: list[int] = field(default_factory=list)
    """Parent of each node: `ROOT`, or the parent's index plus 1."""
    edges: dict[tuple[int, int], int] = field(default_factory=dict)
    """Index of the edge of each (parent, token)."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """Indices of the edges of each candidate, in order."""
    _children: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)
    """Node, plus 1, of each (parent, token)."""

    def add(self, candidate: int, tokens: Sequence[int]) -> None:
        """Enter a candidate's tokens; it shares the edges and nodes that there are already."""
        parent, path = ROOT, []
        for depth, token in enumerate(tokens):
            path.append(self.edges.setdefault((parent, token), len(self.edges)))
            if depth < len(tokens) - 1:  # nothing follows the last token, so it is no node
                parent = self._child(parent, token, depth)
        self.paths[candidate] = path

    def ancestors(self) -> Tensor:
        """Return which nodes are ancestors, [N, N] bool: True where node j is an ancestor of node i, or i itself."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.node_parents):
            if parent != ROOT:
                seen[node] |= seen[parent - 1]  # complete already: a parent stands before its children
        return seen

    def _child(self, parent: int, token: int, depth: int) -> int:
        """Return the node, plus 1, of a token after a parent; it is made if it is not there yet."""
        key = (parent, token)
        if key not in self._children:
            self.tokens.append(token)
            self.depths.append(depth)
            self.node_parents.append(parent)
            self._children[key] = len(self.tokens)
        return self._children[key]


def grow_trees(candidates: Sequence[Sequence[int]], max_nodes: int = 512) -> Iterator[CandidateTree]:
    """Yield trees of about `max_nodes` nodes at most, which together hold all candidates.

    Args:
        candidates: the tokens of each, the end of sequence last.
        max_nodes: a tree is closed once it has this many, which bounds the memory of a pass.
    """
    # Sorted by their tokens, candidates with a common beginning come into one tree.
    order = sorted(range(len(candidates)), key=lambda index: list(candidates[index]))

    # A candidate's own tokens bound what it can add: the real number, without what it shares, is smaller.
    tree = CandidateTree()
    for candidate in order:
        if len(tree.tokens) + len(candidates[candidate]) > max_nodes and tree.paths:
            yield tree
            tree = CandidateTree()
        tree.add(candidate, candidates[candidate])
    if tree.paths:
        yield tree
