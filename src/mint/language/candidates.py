"""Candidate answers packed into trees, so that common beginnings are computed once.

Used by vocabulary ranking (paper, section 4.1). Pure Python and small tensors: knows tokens, no model.
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
    """Of each node; a parent stands before its children."""
    depths: list[int] = field(default_factory=list)
    """0 for the nodes right after the prefix."""
    node_parents: list[int] = field(default_factory=list)
    """`ROOT`, or the parent's index plus 1."""
    edges: dict[tuple[int, int], int] = field(default_factory=dict)
    """(parent, token) to the edge's index."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """Candidate to the indices of its edges, in order."""

    def add(self, candidate: int, tokens: Sequence[int]) -> None:
        """Enter a candidate's tokens, sharing what is there already."""
        parent, path = ROOT, []
        for depth, token in enumerate(tokens):
            path.append(self.edges.setdefault((parent, token), len(self.edges)))
            if depth < len(tokens) - 1:
                parent = self._child(parent, token, depth)
        self.paths[candidate] = path

    def ancestors(self) -> Tensor:
        """[N, N] bool: node i sees node j, its ancestor or itself."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.node_parents):
            if parent != ROOT:
                seen[node] |= seen[parent - 1]
        return seen

    def _child(self, parent: int, token: int, depth: int) -> int:
        key = (parent, token)
        if key not in self._children:
            self.tokens.append(token)
            self.depths.append(depth)
            self.node_parents.append(parent)
            self._children[key] = len(self.tokens)
        return self._children[key]

    _children: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)


def grow_trees(candidates: Sequence[Sequence[int]], max_nodes: int = 512) -> Iterator[CandidateTree]:
    """Pack candidates into trees of about `max_nodes` nodes at most, neighbours in token order together.

    Args:
        candidates: the tokens of each, the end of sequence last.
        max_nodes: a tree is closed once it has this many; bounds the memory of a pass.
    """
    tree = CandidateTree()
    for candidate in sorted(range(len(candidates)), key=lambda index: list(candidates[index])):
        if len(tree.tokens) + len(candidates[candidate]) > max_nodes and tree.paths:
            yield tree
            tree = CandidateTree()
        tree.add(candidate, candidates[candidate])
    if tree.paths:
        yield tree
