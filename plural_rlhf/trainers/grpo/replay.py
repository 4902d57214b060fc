"""Completions of earlier visits, kept to be learnt from again between two generation batches.

A residual is constant at the target whoever drew the completions, so `vargrad` and `tb` may learn from any completion
of a prompt. If a generation batch is used more than once (`num_iterations`), every further use makes each group up
anew: one share is drawn in proportion to the target from all remembered completions of the prompt, the rest at random
from the group just drawn. Answers that the policy has unlearnt come back this way, and more is known of a prompt after
every visit (the replay of TBA, 2503.18929, with the known reward as its priority).

All processes hold the same memory and draw the same. Knows nothing of models, or of what a token means.

Shapes: `N` completions of all processes, `G` a group, `n` completions of a micro-batch, `T` tokens, `K` clusters.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from plural_rlhf.core.rules import Rule
from plural_rlhf.trainers.grpo.generation_batch import RewardTable


__all__ = ["ReplayMemory", "Replayed", "replayed_columns", "signed_tokens"]

_INT32 = "i"
_OF_TOKENS = "_per_token_logps"  # how TRL's columns of the log-probabilities of a completion's tokens end


@dataclass
class _Completion:
    """One completion of a prompt.

    Attributes:
        said: Its tokens, packed (a name of the checkpoint); completions of a prompt with equal tokens are one.
        r: `K` rewards, logits.
        scores: What each of the `F` reward functions gave.
        log_pi_ref: Sequence log-probability under π₀, nats.
        log_pi: The same under the policy that drew it last.
        log_target: log π₀ + R/β when its target was last computed, nats.
    """

    said: bytes
    r: list[float]
    scores: list[float]
    log_pi_ref: float
    log_pi: float
    log_target: float

    @property
    def tokens(self) -> list[int]:
        """The tokens, `~token` for a token that the policy did not choose."""
        tokens = array(_INT32)
        tokens.frombytes(self.said)
        return tokens.tolist()


@dataclass(frozen=True)
class Replayed:
    """A generation batch that was made up from the memory, in the order of the batch that it replaces.

    Attributes:
        table: Its rewards.
        completions: `N` completions.
    """

    table: RewardTable
    completions: list[_Completion]

    @property
    def log_pi_ref(self) -> Tensor:
        """`(N,)` sequence log-probabilities under π₀, nats."""
        return torch.tensor([c.log_pi_ref for c in self.completions], dtype=torch.float64)

    @property
    def log_pi(self) -> Tensor:
        """`(N,)` the same under the policies that drew them."""
        return torch.tensor([c.log_pi for c in self.completions], dtype=torch.float64)


def signed_tokens(rows: Mapping[str, Tensor]) -> list[list[int]]:
    """Return the completions of TRL's columns without padding, `~token` for a token that the policy did not choose.

    Example:
        >>> ones = torch.ones(1, 3).long()
        >>> signed_tokens({"completion_ids": torch.tensor([[5, 7, 9]]), "completion_mask": ones})
        [[5, 7, 9]]
        >>> mask = torch.tensor([[1, 0, 1]])  # 7 is a tool's answer
        >>> signed_tokens(
        ...     {"completion_ids": torch.tensor([[5, 7, 9]]), "completion_mask": ones, "tool_mask": mask}
        ... )
        [[5, -8, 9]]
    """
    ids, mask = rows["completion_ids"], rows["completion_mask"].bool()
    signed = torch.where(rows["tool_mask"].bool(), ids, ~ids) if "tool_mask" in rows else ids
    return [row[real].tolist() for row, real in zip(signed, mask, strict=True)]


def replayed_columns(part: Mapping[str, Any], replayed: Replayed, pad_token_id: int) -> dict[str, Any]:
    """Return a micro-batch with other completions of the same prompts.

    Args:
        part: TRL's columns; `row` `(n,)` says which completions of the batch it has, and without it there are none.
        replayed: The batch of all processes.
        pad_token_id: Fills up shorter completions.

    Returns:
        The columns, without those that belong to the completions that were replaced.

    Example:
        >>> from types import SimpleNamespace
        >>> replayed = SimpleNamespace(completions=[SimpleNamespace(tokens=[5, 9]), SimpleNamespace(tokens=[9])])
        >>> part = {"prompt_ids": torch.tensor([[1], [1]]), "row": torch.tensor([0, 1])}
        >>> replayed_columns(part, replayed, pad_token_id=0)["completion_ids"].tolist()
        [[5, 9], [9, 0]]
    """
    if "row" not in part:
        return dict(part)
    index = part["row"]
    signed = [torch.tensor(replayed.completions[i].tokens, dtype=torch.long) for i in index.tolist()]
    mask = pad_sequence([torch.ones_like(tokens) for tokens in signed], batch_first=True)
    tokens = pad_sequence(signed, batch_first=True)
    own = (tokens >= 0).long()
    ids = torch.where(mask.bool(), torch.where(own.bool(), tokens, ~tokens), pad_token_id)
    columns = {"completion_ids": ids, "completion_mask": mask, "tool_mask": own}
    kept = {name: value for name, value in part.items() if not name.endswith(_OF_TOKENS) and name not in columns}
    return kept | {name: column.to(index.device) for name, column in columns.items()}


class ReplayMemory:
    """The different completions of each prompt; those of prompts not seen for longest are forgotten first.

    Args:
        size: Number of remembered completions, of all prompts together; those of the latest batch are always kept.
        share: Share of a group that is drawn from the memory.
        seed: Random seed of the draws.

    Example:
        >>> def batch(rewards):
        ...     r = torch.tensor([[reward] for reward in rewards])
        ...     n = len(rewards)
        ...     return RewardTable(r, torch.ones(n, 1), r, ["p"] * n, ["p"] * n, [None] * n, [None] * n)
        >>> memory = ReplayMemory(size=100, share=0.5, seed=0)
        >>> memory.add(batch([9.0, 0.0]), [[1], [2]], *torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]]))
        >>> memory.add(batch([0.0, 0.0]), [[2], [2]], *torch.zeros(3, 2))  # the policy no longer says 1
        >>> [completion.tokens for completion in memory.draw(group=2).completions]  # half of the group: the target's
        [[1], [2]]
    """

    def __init__(self, size: int, share: float, seed: int) -> None:
        self.size, self.share, self.seed = size, share, seed
        self._kept: dict[str, dict[bytes, _Completion]] = {}
        self._latest: tuple[RewardTable, list[bytes]] | None = None
        self._draws = 0

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def add(
        self,
        table: RewardTable,
        tokens: Sequence[Sequence[int]],
        log_pi_ref: Tensor,
        log_pi: Tensor,
        log_target: Tensor,
    ) -> None:
        """Remember a generation batch of all processes.

        Args:
            table: Its rewards.
            tokens: `N` completions, end token included, from `signed_tokens`.
            log_pi_ref: `(N,)` sequence log-probabilities under π₀, nats.
            log_pi: `(N,)` the same under the policy.
            log_target: `(N,)` log π₀ + R/β, nats.
        """
        drawn = [array(_INT32, row).tobytes() for row in tokens]
        numbers = [column.tolist() for column in (table.r, table.scores, log_pi_ref, log_pi, log_target)]
        for key, packed, *each in zip(table.shown, drawn, *numbers, strict=True):
            of_prompt = self._kept.pop(key, {})  # and back at the end, where the newest are
            of_prompt.pop(packed, None)
            of_prompt[packed] = _Completion(packed, *each)
            self._kept[key] = of_prompt
        self._latest = table, drawn
        excess = len(self) - max(self.size, len(set(zip(table.shown, drawn, strict=True))))
        while excess > 0:
            oldest = next(iter(self._kept))
            of_prompt = self._kept[oldest]
            for packed in list(of_prompt)[:excess]:
                del of_prompt[packed]
                excess -= 1
            if not of_prompt:
                del self._kept[oldest]

    def draw(self, group: int) -> Replayed:
        """Make the latest generation batch up anew; a prompt met for the first time keeps its group as it is.

        The memory's share of a group is drawn without replacement and in proportion to the target.

        Args:
            group: G, completions per prompt.
        """
        assert self._latest is not None
        table, latest = self._latest
        # Not a salted stream: a training that is resumed from an older checkpoint draws as it would have drawn.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._draws)
        self._draws += 1
        chosen: list[_Completion] = []
        for first in range(0, len(latest), group):
            fresh, of_prompt = latest[first : first + group], self._kept[table.shown[first]]
            if len(of_prompt) == len(set(fresh)):
                chosen += [of_prompt[packed] for packed in fresh]
                continue
            remembered = list(of_prompt.values())
            count = min(round(self.share * group), len(remembered))
            log_p = torch.tensor([c.log_target for c in remembered], dtype=torch.float64)
            # The largest of log p + Gumbel noise are a draw without replacement.
            gumbel = -torch.empty_like(log_p).exponential_(generator=generator).log()
            chosen += [remembered[i] for i in (log_p + gumbel).topk(count).indices.tolist()]
            chosen += [
                of_prompt[fresh[i]] for i in torch.randperm(group, generator=generator)[: group - count].tolist()
            ]
        r, scores = (
            torch.tensor(rows, dtype=torch.float64) for rows in ([c.r for c in chosen], [c.scores for c in chosen])
        )
        return Replayed(replace(table, r=r, scores=scores, drawn=[c.said for c in chosen], texts=[]), chosen)

    def aim(self, replayed: Replayed, log_target: Tensor) -> None:
        """Record the target of these completions as it is now, `(N,)` log π₀ + R/β in nats."""
        for completion, value in zip(replayed.completions, log_target.tolist(), strict=True):
            completion.log_target = value

    def state_dict(self) -> dict[str, Any]:
        """Return all that is remembered, for a checkpoint."""
        state: dict[str, Any] = {
            "kept": {key: [dict(vars(c)) for c in of_prompt.values()] for key, of_prompt in self._kept.items()},
            "latest": None,
            "draws": self._draws,
        }
        if self._latest is not None:
            table, latest = self._latest
            rules = [rule and (rule.name, dict(rule.options)) for rule in table.rules]
            state["latest"] = ({**vars(table), "rules": rules, "texts": []}, latest)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._kept = {
            key: {c["said"]: _Completion(**c) for c in of_prompt} for key, of_prompt in state["kept"].items()
        }
        self._latest, self._draws = None, state["draws"]
        if state["latest"] is not None:
            columns, latest = state["latest"]
            rules = [rule and Rule(*rule) for rule in columns["rules"]]
            self._latest = RewardTable(**{**columns, "rules": rules}), latest
