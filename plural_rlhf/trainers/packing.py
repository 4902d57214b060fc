"""Many token sequences in one forward pass, every shared prefix computed once (a token trie with tree attention).

The sequences of a batch become one row of trie nodes; each node attends to its ancestors only and sits at the position
of its depth, so every node's hidden state is what it would be in its own sequence, and gradients agree too. Fifteen
survey questions with three answers each share their instructions, so the row is a third as long as the questions one
by one. This file knows nothing of prompts, answers or rewards.

Shapes: `M` nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch


if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TokenTrie", "build_tries", "supports_packing", "trie_log_probs"]

MAX_NODES = 1024
"""Nodes in one row; attention is quadratic in them, and prompts that share little gain nothing from a longer row."""


@dataclass(frozen=True)
class TokenTrie:
    """A batch of sequences as a trie, parents before children.

    Attributes:
        tokens: `(M,)` token of each node.
        depth: `(M,)` its position in every sequence through it.
        ancestors: `(M, M)` true where the column is the row's node or one of its ancestors.
        paths: For each sequence, the nodes of its tokens.
        members: Which sequence of the input each path is.
    """

    tokens: np.ndarray
    depth: np.ndarray
    ancestors: np.ndarray
    paths: list[list[int]]
    members: list[int]


def build_tries(sequences: Sequence[Sequence[int]], max_nodes: int = MAX_NODES) -> list[TokenTrie]:
    """Packs sequences into as few tries as `max_nodes` allows, in their order.

    Example:
        >>> trie, = build_tries([[5, 6, 7], [5, 6, 8]])
        >>> trie.tokens.tolist(), trie.paths
        ([5, 6, 7, 8], [[0, 1, 2], [0, 1, 3]])
    """
    tries: list[TokenTrie] = []
    children: dict[tuple[int, int], int] = {}
    parents: list[int] = []
    tokens: list[int] = []
    paths: list[list[int]] = []
    members: list[int] = []

    def close() -> None:
        if not paths:
            return
        ancestors = np.eye(len(tokens), dtype=np.bool_)
        depth = np.zeros(len(tokens), dtype=np.int64)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
                depth[node] = depth[parent] + 1
        tries.append(TokenTrie(np.array(tokens), depth, ancestors, list(paths), list(members)))

    for n, sequence in enumerate(sequences):
        if paths and len(tokens) + len(sequence) > max_nodes:
            close()
            children, parents, tokens = {}, [], []
            paths, members = [], []
        node, path = -1, []
        for token in sequence:
            edge = (node, int(token))
            if edge not in children:
                children[edge] = len(tokens)
                tokens.append(int(token))
                parents.append(node)
            node = children[edge]
            path.append(node)
        paths.append(path)
        members.append(n)
    close()
    return tries


def supports_packing(model: PreTrainedModel, longest: int) -> bool:
    """Whether the model's attention takes a mask of ours and every layer looks back over the whole of a sequence."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)  # a field of some architectures only
    return config._attn_implementation in ("sdpa", "eager") and (window is None or longest <= window)


def trie_log_probs(
    model: torch.nn.Module, trie: TokenTrie, starts: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Log-probability of the end of each sequence: the sum over its tokens from position `starts[i]` (at least 1) on.

    Args:
        model: A decoder of transformers (PEFT-wrapped or not).
        trie: The sequences.
        starts: Per path of the trie, the first position that counts.
        device: Where the model is.

    Returns:
        `(len(paths),)` nats, float32.
    """
    steps = [(p, path[t - 1], path[t]) for p, path in enumerate(trie.paths) for t in range(starts[p], len(path))]
    owner, before, node = (np.array(column) for column in zip(*steps, strict=True))
    asked, row = np.unique(before, return_inverse=True)
    blocked = torch.from_numpy(~trie.ancestors).to(device)
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(1, 1, *blocked.shape, dtype=dtype, device=device)
    mask.masked_fill_(blocked, torch.finfo(dtype).min)
    logits = model(
        input_ids=torch.from_numpy(trie.tokens)[None].to(device),
        attention_mask=mask,
        position_ids=torch.from_numpy(trie.depth)[None].to(device),
        logits_to_keep=torch.from_numpy(asked).to(device),
        use_cache=False,
    ).logits[0]
    log_p = logits.float().log_softmax(-1)[
        torch.from_numpy(row).to(device), torch.from_numpy(trie.tokens[node]).to(device)
    ]
    total = torch.zeros(len(trie.paths), device=device)
    return total.index_add(0, torch.from_numpy(owner).to(device), log_p)
