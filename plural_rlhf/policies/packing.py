"""Many token sequences in one row of a forward pass, every shared prefix computed once (a token trie).

The tokens become nodes of a trie; a node attends to its ancestors only and has the position of its depth, so its
hidden state is the same as in its own sequence, and so are gradients. Fifteen survey questions with three answers each
share their instructions, so the row is a third as long as the questions one by one. Builds arrays; calls no model and
knows nothing of prompts, answers or rewards.

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
"""The label of a place whose log-probability is not needed."""

MAX_PLACES = 2048
"""Places in one row; its mask has the square of that number."""


@dataclass(frozen=True)
class PackedRow:
    """Several sequences as one row; see `pack`.

    Every place has at most one label. A node with several next tokens therefore has further places, which attend to
    the same places and to which nothing attends.

    Attributes:
        tokens: `(M,)` token of each place.
        positions: `(M,)` its position in every sequence through it.
        visible: `(M, M)` true where the row's place attends to the column's.
        labels: `(M,)` the token after this place whose log-probability is needed, or -100.
        label_places: For each member, the places of its labelled tokens, in order.
        members: Index of each member in the input.

    Example:
        >>> row, = pack([[5, 6, 7], [5, 6, 8]], [1, 1])  # the second 6 is there for its own label
        >>> row.tokens.tolist(), row.positions.tolist(), row.visible[2].tolist()
        ([5, 6, 6], [0, 1, 1], [True, False, True])
    """

    tokens: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    label_places: list[list[int]]
    members: list[int]


def pack(
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    pairs_per_token: float = 2000.0,
    max_places: int = MAX_PLACES,
) -> list[PackedRow]:
    """Pack sequences, in their order, into rows; a row grows while sharing saves more than the longer row costs.

    Args:
        sequences: Tokens.
        starts: For each sequence the first token (at least 1) whose log-probability is needed.
        pairs_per_token: Number of pairs of places whose attention costs as much as one token in all other layers.
        max_places: Longest row, unless a single sequence is longer.

    Example:
        >>> row, = pack([[5, 6, 7], [5, 6, 8]], [1, 1])
        >>> row.tokens.tolist(), row.labels.tolist(), row.label_places
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
    """A row under construction: parents before children, and every node's further places after it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.labels: list[int] = []
        self.children: dict[tuple[int, int], int] = {}
        self.labelled: dict[tuple[int, int], int] = {}
        self.label_places: list[list[int]] = []
        self.members: list[int] = []

    def shared(self, sequence: Sequence[int]) -> int:
        node = -1
        for depth, token in enumerate(sequence[:-1]):
            if (node, token) not in self.children:
                return depth
            node = self.children[node, token]
        return len(sequence) - 1

    def add(self, member: int, sequence: Sequence[int], start: int) -> None:
        node, label_places = -1, []
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
                label_places.append(self.labelled[node, label])
        self.label_places.append(label_places)
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
        return PackedRow(
            np.array(self.tokens), positions, visible, np.array(self.labels), self.label_places, self.members
        )


def stack(rows: Sequence[PackedRow]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack rows, padded on the right: tokens `(R, M)`, positions `(R, M)`, visible `(R, M, M)`, labels `(R, M)`.

    A padding place attends to itself only, and nothing attends to it.

    Example:
        >>> tokens, positions, visible, labels = stack(pack([[5, 6, 7], [8, 9]], [1, 1], max_places=2))
        >>> tokens.tolist(), labels.tolist()
        ([[5, 6], [8, 0]], [[6, 7], [9, -100]])
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
    """Return the additive mask `(R, 1, M, M)`: 0 where `visible`, the lowest number of `dtype` elsewhere.

    Example:
        >>> attention_mask(torch.tensor([[[True, False], [True, True]]]), torch.float16)[0, 0].tolist()
        [[0.0, -65504.0], [0.0, 0.0]]
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
