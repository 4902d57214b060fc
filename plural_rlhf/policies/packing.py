"""Many token sequences in one row of a forward pass, every shared prefix computed once (a token trie).

The sequences become nodes of a trie; a node sees its ancestors only and stands at the position of its depth, so its
hidden state is what it would be in its own sequence, and gradients agree too. Fifteen survey questions with three
answers each share their instructions, so the row is a third as long as the questions one by one. This file builds
arrays; it calls no model and knows nothing of prompts, answers or rewards.

Shapes: `M` places in a row, `R` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch


__all__ = ["IGNORED", "PackedRow", "attention_mask", "pack", "stack"]

IGNORED = -100
"""The label of a place where no log-probability is asked for."""

MAX_PLACES = 2048
"""Places in one row, whose mask has the square of them."""


@dataclass(frozen=True)
class PackedRow:
    """Some sequences as one row.

    Every place has at most one label. A node that several different tokens follow therefore has further places, which
    see what it sees and which nothing sees.

    Attributes:
        tokens: `(M,)` token of each place.
        positions: `(M,)` its position in every sequence through it.
        visible: `(M, M)` true where the row's place sees the column's.
        labels: `(M,)` the token whose log-probability is asked for after this place, or -100.
        asked: For each member, the places of its asked tokens, in order.
        members: Which sequence of the input each member is.
    """

    tokens: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    asked: list[list[int]]
    members: list[int]


def pack(
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    pairs_per_token: float = 2000.0,
    max_places: int = MAX_PLACES,
) -> list[PackedRow]:
    """Packs sequences, in their order, into rows; a row goes on while sharing saves more than the longer row costs.

    Args:
        sequences: Tokens.
        starts: For each sequence the first token (at least 1) whose log-probability is asked for.
        pairs_per_token: How many pairs of places cost as much attention as one token costs in all the rest.
        max_places: Longest row, unless one sequence alone is longer.

    Example:
        >>> row, = pack([[5, 6, 7], [5, 6, 8]], [1, 1])
        >>> row.tokens.tolist(), row.labels.tolist(), row.asked
        ([5, 6, 6], [6, 7, 8], [[0, 1], [0, 2]])
    """
    rows: list[PackedRow] = []
    trie = _Trie()
    for n, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        alone, size, shared = len(sequence) - 1, len(trie.tokens), trie.shared(sequence)
        together = size + alone - shared
        dearer = together**2 - size**2 - alone**2 > shared * pairs_per_token
        if trie.members and (dearer or together > max_places):
            rows.append(trie.row())
            trie = _Trie()
        trie.add(n, sequence, start)
    return [*rows, trie.row()] if trie.members else rows


class _Trie:
    """A row in the making: parents before children, and every node's further places after it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.labels: list[int] = []
        self.children: dict[tuple[int, int], int] = {}
        self.labelled: dict[tuple[int, int], int] = {}
        self.asked: list[list[int]] = []
        self.members: list[int] = []

    def shared(self, sequence: Sequence[int]) -> int:
        node = -1
        for depth, token in enumerate(sequence[:-1]):
            if (node, token) not in self.children:
                return depth
            node = self.children[node, token]
        return len(sequence) - 1

    def add(self, member: int, sequence: Sequence[int], start: int) -> None:
        node, asked = -1, []
        # The last token is predicted, but nothing is predicted from it.
        for depth, (token, label) in enumerate(pairwise(sequence)):
            if (node, token) not in self.children:
                self.children[node, token] = self._place(token, node)
            node = self.children[node, token]
            if depth + 1 >= start:
                if (node, label) not in self.labelled:
                    place = node if self.labels[node] == IGNORED else self._place(token, self.parents[node])
                    self.labels[place] = label
                    self.labelled[node, label] = place
                asked.append(self.labelled[node, label])
        self.asked.append(asked)
        self.members.append(member)

    def _place(self, token: int, parent: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.labels.append(IGNORED)
        return len(self.tokens) - 1

    def row(self) -> PackedRow:
        visible = np.eye(len(self.tokens), dtype=np.bool_)
        positions = np.zeros(len(self.tokens), dtype=np.int64)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                visible[place] |= visible[parent]
                positions[place] = positions[parent] + 1
        return PackedRow(np.array(self.tokens), positions, visible, np.array(self.labels), self.asked, self.members)


def stack(rows: Sequence[PackedRow]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows as tensors, padded on the right: tokens `(R, M)`, positions `(R, M)`, visible `(R, M, M)`, labels `(R, M)`.

    A padding place sees itself only, and nothing sees it.
    """
    width = max(len(row.tokens) for row in rows)
    tokens, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    labels = torch.full((len(rows), width), IGNORED)
    for r, row in enumerate(rows):
        size = len(row.tokens)
        tokens[r, :size] = torch.from_numpy(row.tokens)
        positions[r, :size] = torch.from_numpy(row.positions)
        visible[r, :size, :size] = torch.from_numpy(row.visible)
        labels[r, :size] = torch.from_numpy(row.labels)
    return tokens, positions, visible, labels


def attention_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`(R, 1, M, M)` additive mask: 0 where `visible`, the lowest number of `dtype` elsewhere."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
