"""What is kept of every prompt between its visits, with one owner that a checkpoint saves.

Offsets, running means and remembered completions differ in what they are for and agree in when they live: they start
when a prompt is met, follow it from visit to visit, and must be there after a resume. All processes keep the same.
Knows nothing of models, rewards or of how a target comes about.

Shapes: `n` completions of a prompt, `N` completions of a batch, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.core.offsets import OffsetTracker, kept_apart
from plural_rlhf.rewards.completions import rows_of
from plural_rlhf.trainers.grpo.replay import ReplayMemory
from plural_rlhf.trainers.grpo.token_credit.prefix_rewards import PrefixSlopes


__all__ = ["PromptState"]


class PromptState:
    """Everything that training keeps per prompt.

    Args:
        offsets: Offsets, best rewards and normalisers; the same object as the jury reward's.
        replay: Completions to learn from again; None where each batch is used as it was drawn.

    Attributes:
        slopes: What beginnings of completions say of the whole, of all prompts together.

    Example:
        >>> state = PromptState(OffsetTracker(num_clusters=1))
        >>> for reward in (1.0, 3.0):  # two visits by the reference itself: weights π₀/π of 1
        ...     state.observe_reference("prompt", torch.tensor([[reward]]).double(), torch.zeros(1).double())
        >>> round(float(state.reference_means(["prompt"])), 6)
        2.0
    """

    def __init__(self, offsets: OffsetTracker, replay: ReplayMemory | None = None) -> None:
        self.offsets = offsets
        self.replay = replay
        self.slopes = PrefixSlopes()
        # Per prompt and cluster: log π₀ of the most probable tied answer so far.
        self._anchors: dict[str, Tensor] = {}
        # Per prompt: E_{π₀}[r] of each cluster over all completions so far, and log of the sum of their weights.
        self._reference_means: dict[str, tuple[Tensor, Tensor]] = {}
        self._apart: dict[str, dict[str, Any]] = {}

    def visit(self, keys: Sequence[str]) -> None:
        """Record that training has visited these prompts, and forget what `OffsetTracker.visit` forgets."""
        for key in self.offsets.visit(keys):
            self._anchors.pop(key, None)
            self._reference_means.pop(key, None)

    def observe_reference(self, key: str, r: Tensor, log_weights: Tensor) -> None:
        """Add completions to the average that estimates E_{π₀}[r], over all visits because one group tells too little.

        The weights π₀/π sum to about one per completion, whoever drew it, so each visit counts with what it tells.

        Args:
            key: Key of the prompt's offsets.
            r: `(n, K)` rewards, logits.
            log_weights: `(n,)` log π₀ − log π of each, nats.
        """
        mean, total = log_weights.softmax(0) @ r, log_weights.logsumexp(0)
        if key in self._reference_means:
            before, known = self._reference_means[key]
            mean, total = before + (total - known).sigmoid() * (mean - before), torch.logaddexp(total, known)
        self._reference_means[key] = mean, total

    def reference_means(self, keys: Sequence[str]) -> Tensor:
        """Return the estimates of E_{π₀}[r] for prompts that were observed, `(N, K)` logits."""
        return torch.stack([self._reference_means[key][0] for key in keys])

    def anchors(self, keys: Sequence[str], r: Tensor, log_pi_ref: Tensor, tie_margin: float) -> Tensor:
        """Return `(N, K)` log π₀ of the most probable answer that ties with the best, over all visits of each prompt.

        Args:
            keys: Key of each row's offsets.
            r: `(N, K)` rewards of this visit, logits.
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats.
            tie_margin: How many logits below the best an answer still ties with it.
        """
        best = self.offsets.best(keys)
        for key, rows in rows_of(keys).items():
            highest = torch.maximum(best[rows[0]], r[rows].amax(dim=0))
            if bool((highest > best[rows[0]]).any()):
                self._anchors.pop(key, None)  # what tied with a lower best may tie no more
            tied = torch.where(r[rows] >= highest - tie_margin, log_pi_ref[rows][:, None], -torch.inf).amax(dim=0)
            self._anchors[key] = torch.maximum(self._anchors.get(key, tied), tied)
        return torch.stack([self._anchors[key] for key in keys])

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Keep what is learnt of prompts inside the block apart, for evaluations; see `OffsetTracker.apart`.

        Remembered completions are of the training only, and are not touched.
        """
        with self.offsets.apart(), kept_apart(self, ("_anchors", "_reference_means"), self._apart):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: all but the remembered completions, which are tensors (`ReplayMemory`)."""
        return {
            "offsets": self.offsets.state_dict(),
            "targeting": {
                "anchors": {key: value.tolist() for key, value in self._anchors.items()},
                "reference_averages": {
                    key: [mean.tolist(), float(n)] for key, (mean, n) in self._reference_means.items()
                },
            },
            "prefix_slopes": self.slopes.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; older checkpoints hold offsets only."""
        self.offsets.load_state_dict(state["offsets"])
        saved = state.get("targeting", {"anchors": {}})
        self._anchors = {key: torch.tensor(v, dtype=torch.float64) for key, v in saved["anchors"].items()}
        self._reference_means = {
            key: (torch.tensor(mean, dtype=torch.float64), torch.tensor(n, dtype=torch.float64))
            for key, (mean, n) in saved.get("reference_averages", {}).items()
        }
        self.slopes.load_state_dict(state.get("prefix_slopes", [[], []]))
