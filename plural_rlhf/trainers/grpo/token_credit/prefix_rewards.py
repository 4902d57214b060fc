"""Credit for each token from what the jury says of the beginnings of a completion.

The residual of a whole completion gives all of its tokens one coefficient, so each token's gradient carries the noise
of all the others. The reward of the first tokens tells much of the whole completion's. With V(prefix) predicted from
it, token t gets the generalised advantage `sum_s decay^(s - t) (V(s + 1) - V(s) - log-ratio(s))` (Schulman et al.,
1506.02438), in which V of the whole is R/β and the log-ratio of the tokens is the soft reward's KL term.

With `decay` below 1 the fixed point depends on V, which is a guess. The loss therefore moves to the whole residual
while training goes on, and its last steps have the target as their fixed point. Knows nothing of models.

Shapes: `N` completions of all processes, `n` of this process, `G` a group, `T` tokens, `J` cuts, one every so many
tokens, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plural_rlhf.rewards.completions import as_completions, rows_of
from plural_rlhf.trainers.grpo.exact import row_key
from plural_rlhf.trainers.grpo.reference_draws import Row, judge


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from plural_rlhf.core.rules import Rule
    from plural_rlhf.rewards.jury_reward import JuryReward

__all__ = ["PrefixSlopes", "credit_loss", "prefix_gains", "prefix_rewards"]

_RIDGE = 5.0
"""Squared nats of spread between prefixes that count as if they had told nothing."""


class PrefixSlopes:
    """How much the difference between two prefixes' rewards says of that between the whole completions'.

    One regression through the origin for each cut, within groups, over all generations so far.

    Example:
        >>> slopes = PrefixSlopes()
        >>> slopes.of(1)
        tensor([0.], dtype=torch.float64)
        >>> slopes.observe(torch.tensor([[-5.0], [5.0]]), torch.tensor([-10.0, 10.0]), group=2)
        >>> slopes.of(1)  # 100 / (50 + 5)
        tensor([1.8182], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(2, 0, dtype=torch.float64)  # of products with the whole, and of squares

    def of(self, cuts: int) -> Tensor:
        """Return the slopes of the first cuts, `(J,)`; 0 where nothing is known."""
        products, squares = self._grown(cuts)[:, :cuts]
        return products / (squares + _RIDGE)

    def observe(self, values: Tensor, reward: Tensor, group: int) -> None:
        """Learn from a generation.

        Args:
            values: `(N, J)` rewards of the prefixes over β, NaN where a completion is shorter.
            reward: `(N,)` the same of the whole completions.
            group: G.
        """
        v = values.double().view(-1, group, values.shape[-1])
        known = ~v.isnan()
        whole = reward.double().view(-1, group, 1).expand_as(v)
        count = known.sum(1, keepdim=True).clamp(min=1)
        x, y = (torch.where(known, part, 0.0) for part in (v, whole))
        x, y = (torch.where(known, part - part.sum(1, keepdim=True) / count, 0.0) for part in (x, y))
        sums = self._grown(v.shape[-1]).clone()
        sums[:, : v.shape[-1]] += torch.stack([(x * y).sum((0, 1)), x.square().sum((0, 1))])
        self._sums = sums

    def _grown(self, cuts: int) -> Tensor:
        return torch.nn.functional.pad(self._sums, (0, max(0, cuts - self._sums.shape[1])))

    def state_dict(self) -> list[list[float]]:
        """Return what is known, for a checkpoint."""
        sums: list[list[float]] = self._sums.tolist()
        return sums

    def load_state_dict(self, state: Sequence[Sequence[float]]) -> None:
        """Put back what `state_dict` returned."""
        self._sums = torch.tensor(state, dtype=torch.float64).reshape(2, -1)


def prefix_rewards(
    reward: JuryReward,
    rows: Sequence[Row],
    columns: Mapping[str, Any],
    w: Tensor,
    rules: Sequence[Rule | None],
    tokenizer: PreTrainedTokenizerBase,
    *,
    every: int,
    longest: int,
) -> Tensor:
    """Let the jury score the beginnings of completions.

    Args:
        reward: The jury and its target; prompts have offsets already.
        rows: `n` rows of the data set.
        columns: TRL's columns of their completions.
        w: `(n, K)` weights.
        rules: The rule of each row, None for the pool.
        tokenizer: Turns tokens into text.
        every: Tokens between two cuts.
        longest: Most tokens of a completion.

    Returns:
        `(n, J)` aggregated rewards over β, nats; NaN where a completion has no token after the cut, or no word before.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from plural_rlhf.rewards.jury_reward import JuryReward
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["all"],
        ...     prevalence=np.ones(1),
        ...     cluster_rewards=lambda prompts, completions: torch.tensor([[float(len(c))] for c in completions]),
        ... )
        >>> reward, tokenizer = JuryReward(scorer, rule="mean"), tiny_tokenizer()
        >>> ids = torch.tensor([tokenizer.encode("abcd") + [tokenizer.eos_token_id]])
        >>> columns = {"completion_ids": ids, "completion_mask": torch.ones_like(ids)}
        >>> rule = [reward.rule]
        >>> prefix_rewards(reward, [{"prompt": "?"}], columns, torch.ones(1, 1), rule, tokenizer, every=2, longest=8)
        tensor([[2., 4., nan]], dtype=torch.float64)
    """
    cuts = range(every, longest, every)
    values = torch.full((len(rows), len(cuts)), torch.nan, dtype=torch.float64)
    lengths = columns["completion_mask"].sum(1).tolist()
    places = [(i, j, cut) for i, length in enumerate(lengths) for j, cut in enumerate(cuts) if cut < length]
    ids = columns["completion_ids"]
    texts = tokenizer.batch_decode([ids[i, :cut].tolist() for i, _, cut in places], skip_special_tokens=True)
    shown = [(i, j, text) for (i, j, _), text in zip(places, texts, strict=True) if text.strip()]
    for key, of_key in rows_of([row_key(rows[i]) for i, _, _ in shown]).items():
        which = [shown[place][0] for place in of_key]
        row = rows[which[0]]
        r = judge(reward, row, as_completions(row["prompt"], [shown[place][2] for place in of_key]))
        pooled, _ = reward.pool(r, w[which].to(r), [key] * len(which), rules=[rules[i] for i in which])
        for place, value in zip(of_key, pooled / reward.target.beta, strict=True):
            values[shown[place][0], shown[place][1]] = value
    return values


def prefix_gains(
    values: Tensor, reward: Tensor, residual: Tensor, lengths: Tensor, slopes: Tensor, group: int, every: int
) -> Tensor:
    """Return how much each token raises the prediction of the whole completion's reward.

    Before its first token a completion is predicted by the mean residual of the others of its group; at a cut by that
    of those as long and, times the slope, how far its prefix is above theirs; after its last token by its own reward.

    Args:
        values: `(N, J)` from `prefix_rewards`.
        reward: `(N,)` rewards of the whole completions over β, nats.
        residual: `(N,)` d, nats.
        lengths: `(N,)` tokens of each completion.
        slopes: `(J,)` of `PrefixSlopes`, from earlier generations.
        group: G.
        every: Tokens between two cuts.

    Returns:
        `(N, T)` nats, T the longest of the lengths; a row sums to its reward less the others' mean residual.

    Example:
        >>> values = torch.tensor([[1.0], [-1.0]])  # after one token of two
        >>> reward = torch.tensor([3.0, -3.0])
        >>> prefix_gains(values, reward, reward, torch.tensor([2, 2]), torch.tensor([1.0]), group=2, every=1)
        tensor([[ 2.,  4.],
                [-2., -4.]], dtype=torch.float64)
    """
    d, v = residual.double().view(-1, group, 1), values.double().view(-1, group, values.shape[-1])
    others = ((d.sum(1, keepdim=True) - d) / (group - 1)).flatten()
    known = ~v.isnan()
    count = known.sum(1, keepdim=True)
    # Of the others that are as long: long texts may be worth more, or less, than short ones.
    level, prefix = ((torch.where(known, part, 0.0).sum(1, keepdim=True) - part) / (count - 1) for part in (d, v))
    at_cut = torch.where(known & (count > 1), level + (v - prefix) * slopes.double(), torch.nan).flatten(0, 1)
    gains = torch.zeros(len(others), int(lengths.max()), dtype=torch.float64)
    before = others
    for j, cut in enumerate(range(every, gains.shape[1], every)):
        after = torch.where(at_cut[:, j].isnan(), before, at_cut[:, j])
        gains[:, cut - 1] += after - before
        before = after
    gains[torch.arange(len(gains)), lengths.cpu() - 1] += reward.double() - before
    return gains


def credit_loss(
    gains: Tensor, whole: Tensor, log_pi: Tensor, log_pi_ref: Tensor, *, decay: float, whole_share: float
) -> Tensor:
    """Compute a score-function loss in which each token has a coefficient of its own.

    Args:
        gains: `(n, T)` from `prefix_gains`.
        whole: `(n,)` coefficient of each whole completion, d − baseline, nats.
        log_pi: `(n, T)` log-probability of each token under the policy, nats, zero at tokens that are not its own;
            gradients flow through it.
        log_pi_ref: `(n, T)` the same under π₀.
        decay: What a gain counts for the token before, 0 to 1.
        whole_share: Share of the whole completion's coefficient in that of each token, 0 to 1.

    Returns:
        A number; its value means nothing.

    Example:
        >>> log_pi = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        >>> gains = torch.tensor([[2.0, 4.0]])
        >>> credit_loss(gains, torch.zeros(1), log_pi, log_pi.detach(), decay=0.5, whole_share=0.0).backward()
        >>> log_pi.grad  # minus 2 + 4 / 2, and minus 4
        tensor([[-4., -4.]])
    """
    delta = gains - (log_pi - log_pi_ref).detach()
    advantage, ahead = torch.zeros_like(delta), torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        ahead = delta[:, t] + decay * ahead
        advantage[:, t] = ahead
    coefficients = (1 - whole_share) * advantage + whole_share * whole[:, None]
    return -(coefficients * log_pi).sum(-1).mean()
